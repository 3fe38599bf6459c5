from importlib import import_module

import pytest

from train.demo import Options, Stage, run, stages
from utils.errors import UserError
from utils.options import parse_options


@pytest.mark.parametrize("stage", stages(Options()), ids=lambda stage: stage.title)
def test_every_command_of_the_demo_parses(stage: Stage) -> None:
    module = import_module(stage.arguments[0])
    options = parse_options(module.Options, stage.arguments[1:])
    assert options.seed in (10, 77)


def test_every_result_that_a_stage_reads_is_made_by_an_earlier_one() -> None:
    made: set[str] = set()
    for stage in stages(Options()):
        inputs = [a for a in stage.arguments if a.endswith(".pt")]
        assert set(inputs) <= made, stage.title
        made.add(str(stage.product))


def test_sft_and_sopo_differ_in_the_method_alone() -> None:
    sft, sopo = (s.arguments for s in stages(Options()) if s.title.startswith(("sft", "sopo")))
    assert [(a, b) for a, b in zip(sft, sopo, strict=True) if a != b] == [
        ("save/demo/sft", "save/demo/sopo"),
        ("sft", "sopo"),
    ]


def test_a_failing_stage_stops_the_demo(tmp_path) -> None:
    with pytest.raises(UserError, match="the stage 'broken' failed"):
        run(Stage("broken", tmp_path / "x", ["train.train_mdm", "--no_such_option"]), 1, 1)
