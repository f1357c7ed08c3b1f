"""A recipe as a graph: jobs after what they need, plain data, and where each takes its weights and teachers from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfcfg.engine.choice import TrainRequest
from selfcfg.engine.recipes.graph import Graph, Job, Piece, build_graph
from selfcfg.recipes.recipe import Recipe

FOLDER = Path("/results/mine")


def graph(*stages: dict[str, Any], folds: tuple[int, ...] = (0, 1)) -> Graph:
    recipe = Recipe.parse({"name": "mine", "stage": list(stages)}, "mine.toml")
    pieces = {
        key: Piece(TrainRequest(trainer=one.trainer, settings=one.settings), folds, 10, 100)
        for key, one in recipe.expansion.candidates.items()
    }
    return build_graph(FOLDER, recipe.expansion, pieces)


def job(made: Graph, name: str) -> Job:
    return next(job for job in made.jobs if job.name == name)


PRETRAIN = {"name": "pretrain", "trainer": "masked", "foreach": {"x": ["u", "v"]}}
FINETUNE = {"name": "finetune", "trainer": "supervised", "init": "pretrain"}
BEST = {"name": "best", "keep": {"of": ["finetune"], "per": "x"}}
STUDENT = {"name": "student", "trainer": "distillation", "teachers": ["best", "/other/run"], "init": "/other/weights"}


def test_every_node_comes_after_what_it_needs() -> None:
    made = graph(PRETRAIN, FINETUNE, BEST, STUDENT)
    names = [node.name for node in made.nodes]
    assert len(names) == len(set(names)) == 2 * (2 + 2) + 1 + 2
    for index, node in enumerate(made.nodes):
        assert set(node.needs) <= set(names[:index])
    assert job(made, "finetune/v/fold_1").needs == ("pretrain/v/fold_1",)
    assert made.contests[0].needs == tuple(f"finetune/{x}/fold_{fold}" for x in "uv" for fold in (0, 1))
    assert job(made, "student/fold_0").needs == ("keep best",)


def test_a_job_is_plain_data_and_gets_its_places_in_the_end() -> None:
    student = job(graph(PRETRAIN, FINETUNE, BEST, STUDENT), "student/fold_1")
    assert Job.model_validate_json(student.model_dump_json()) == student
    request = student.resolved({"best:u": FOLDER / "finetune/u", "best:v": FOLDER / "finetune/v"})
    assert request.teachers == (FOLDER / "finetune/u", FOLDER / "finetune/v", Path("/other/run"))
    assert request.init == Path("/other/weights")


def test_the_cost_of_a_candidate_counts_what_it_starts_from() -> None:
    assert graph(PRETRAIN, FINETUNE, BEST).contests[0].steps == {"finetune/u": 20, "finetune/v": 20}


def test_the_width_is_what_can_run_at_once() -> None:
    assert graph(PRETRAIN, FINETUNE, BEST, STUDENT).width == 4
    chain = ({"name": "a", "trainer": "masked"}, {"name": "b", "trainer": "supervised", "init": "a"})
    assert graph(*chain, folds=(0,)).width == 1
