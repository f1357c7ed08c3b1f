"""What cases are called in a report, and what is kept out of its texts: paths always, ids of cases where asked."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from selfcfg.errors import DataError, UsageError
from selfcfg.files import read_json, replacing

HIDDEN = "anonymised"
"""Folder beside a report for one that names no case."""

_DIGITS, _MORE_DIGITS = 8, 16
_PATH = re.compile(r"(?<![\w.<>/\\~-])(?:file:/+|~?/|[A-Za-z]:[\\/]|\\\\)[^\s/\\'\"<>|]+(?:[/\\][^\s/\\'\"<>|]*)*")
_WHOLE_PATH = re.compile(r"^(?:~?/\S|~$|[A-Za-z]:[\\/]|\\\\|file:|\.\.?[/\\])")


@dataclass(frozen=True)
class Names:
    """What cases are called.

    Args:
        shown: what is shown in place of each id; empty where ids are shown as they are.
        key: that the names were made with.
    """

    shown: Mapping[str, str] = field(default_factory=dict)
    key: bytes = b""

    @classmethod
    def hidden(cls, ids: Iterable[str], key: bytes = b"") -> Names:
        """Names that tell nothing of the ids to whoever has no key: a keyed hash each, such as "case-1f09ab34".

        Args:
            ids: of every case and subject that may be named.
            key: of an earlier report, so that the same cases have the same names; default: drawn, and known to nobody.

        Source: BLAKE2b as a keyed hash, RFC 7693. A plain hash would not do: ids are short enough to be guessed.
        """
        key, every = key or secrets.token_bytes(32), sorted(set(ids))
        for digits in (_DIGITS, _MORE_DIGITS):
            shown = {one: _hashed(one, key, digits) for one in every}
            if len(set(shown.values())) == len(every):
                break
        return cls(shown, key)

    @property
    def is_hidden(self) -> bool:
        """Whether ids are kept out."""
        return bool(self.key)

    def case(self, identifier: str) -> str:
        """What a case or a subject is called."""
        if not self.is_hidden:
            return identifier
        return self.shown.get(identifier) or _hashed(identifier, self.key, _MORE_DIGITS)

    def file_stem(self, identifier: str) -> str:
        """A file name for what shows a case."""
        return re.sub(r"[^A-Za-z0-9_-]", "_", self.case(identifier))

    def text(self, text: object) -> str:
        """A text without paths, and without the ids where they are hidden."""
        plain = str(text)
        if _WHOLE_PATH.match(plain):
            return "(a path)"
        plain = _PATH.sub("(a path)", plain)
        return self._pattern.sub(lambda found: self.case(found[0]), plain) if self.shown else plain

    def write_key(self, file: Path) -> None:
        """Writes which case has which name, for whoever may know; readable for its owner alone."""
        cases = {shown: identifier for identifier, shown in self.shown.items()}
        earlier = read_json(file)["names"] if file.exists() else {}
        content = {"key": self.key.hex(), "names": dict(sorted({**earlier, **cases}.items()))}
        with replacing(file) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Ids between letters and digits; those without a letter look like numbers, which reports are full of."""
        ids = sorted(filter(None, self.shown), key=len, reverse=True)
        words, numbers = (
            "|".join(re.escape(one) for one in ids if bool(re.search("[A-Za-z]", one)) == has_letter) or r"(?!)"
            for has_letter in (True, False)
        )
        named = r"(?<=case )|(?<=subject )|(?<=')|(?<=[/\\])"
        return re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])|(?:{named})(?:{numbers})(?![A-Za-z0-9])")


PLAIN = Names()


class Written(NamedTuple):
    """Where a report was written to.

    Args:
        page: one HTML file that needs no other.
        markdown: the same in Markdown, with its pictures beside it.
    """

    page: Path
    markdown: Path


@dataclass(frozen=True)
class Naming:
    """What cases are to be called.

    Args:
        anonymise: whether by hashes; the report then lies in a folder of its own.
        key_file: where the table of names is to be written, and the key read from where it is there already; None:
            nobody is to know.
    """

    anonymise: bool = False
    key_file: Path | None = None

    def names(self, ids: Iterable[str], page: Path) -> Names:
        """The names of cases and subjects.

        Args:
            ids: of all of them.
            page: folder that is given away.

        Raises:
            UsageError: the table would lie in that folder.
            DataError: the table's file is something else.
        """
        if not self.anonymise:
            return PLAIN
        file = self.key_file
        if file is None:
            return Names.hidden(ids)
        if file.absolute().is_relative_to(page.absolute()):
            found = f"it would lie in {page}, which is given away"
            raise UsageError(f"--anonymise-key {file}", found, "choose another folder")
        return Names.hidden(ids, _key_in(file) if file.exists() else b"")

    def keep(self, names: Names) -> None:
        """Writes the table of names where it is asked for."""
        if self.key_file is not None:
            names.write_key(self.key_file)


AS_THEY_ARE = Naming()


def _key_in(file: Path) -> bytes:
    content: Any = read_json(file)
    try:
        key = bytes.fromhex(content["key"]) if isinstance(content["names"], dict) else b""
    except (KeyError, TypeError, ValueError):
        key = b""
    if not 16 <= len(key) <= 64:
        raise DataError(f"read {file}", "it is no table of names that selfcfg wrote", "give another --anonymise-key")
    return key


def _hashed(identifier: str, key: bytes, digits: int) -> str:
    return f"case-{hashlib.blake2b(identifier.encode(), key=key, digest_size=digits // 2).hexdigest()}"
