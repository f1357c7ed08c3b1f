"""The page as one HTML file: templates filled in and escaped, style and program inside, nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import selfcfg
from selfcfg.files import write_text
from selfcfg.report.page.blocks import Section
from selfcfg.report.page.facts import Facts
from selfcfg.report.page.outline import sections_of
from selfcfg.report.page.sections.summary import NOTICE

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def write_page(file: Path, facts: Facts) -> Path:
    """The path of the page, written whole or not at all.

    Args:
        file: where to write.
        facts: what is known.
    """
    write_text(file, page(facts, sections_of(facts)))
    return file


def page(facts: Facts, sections: Sequence[Section]) -> str:
    """The page as HTML.

    Style and program are allowed by their hashes, pictures as data, and nothing else: a browser that heeds the policy
    loads nothing and sends nothing, whatever names the data brought along.
    """
    from markupsafe import Markup  # noqa: PLC0415 - only pages need it

    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=facts.title,
            subtitle=facts.subtitle,
            sections=sections,
            hidden=facts.names.is_hidden,
            notice=NOTICE,
            version=selfcfg.__version__,
            policy=policy(style, script),
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
        )
    )


def policy(style: str, script: str) -> str:
    """The content security policy of a page with this style and program."""
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - only pages need it
    from markupsafe import Markup  # noqa: PLC0415

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["safe_json"] = lambda value: Markup(_embedded(value))  # noqa: S704 - cannot end its element
    made.filters["drawn"] = Markup  # what an XML writer wrote
    return made


def _embedded(value: Any) -> str:
    """JSON that may stand within a script element, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
