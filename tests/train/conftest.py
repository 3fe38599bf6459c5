"""One tiny dataset with a base model and a reward model, trained once per session."""

from types import SimpleNamespace

import pytest

from eval.judging import Figures
from eval.motion_sets import MotionSet
from prepare.procedural import dataset as synthetic
from tests.train.scripts import Process, Workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Workspace:
    root = tmp_path_factory.mktemp("training")
    data = root / "data"
    synthetic.build(synthetic.Options(out=str(data), num_clips=60, captions_per_clip=2))
    names = (data / "all.txt").read_text().split()
    (data / "val.txt").write_text("\n".join(names[:16]))  # pools of distinct meanings need some
    space = Workspace(data, root / "base" / "model000000002.pt", root / "reward")
    space.run("train_mdm", space.base.parent, "--use_ema")
    space.run("train_tmr", space.reward)
    return space


def figures(motions: MotionSet, *_) -> Figures:
    """In place of all judges, as the tiny dataset fills no pools: a number per model."""
    mean = float(motions.motions.mean())
    return Figures(mean, mean, mean, mean, mean, None, None, None, None, None, mean, 0)


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The commands that stages have run; none is a process of its own."""
    commands: list[list[str]] = []

    def popen(words: list[str], **streams) -> Process:
        commands.append(words[2:])
        return Process(words, **streams)

    fake = SimpleNamespace(Popen=popen, STDOUT=None)
    monkeypatch.setattr("train.stages.subprocess", fake)
    monkeypatch.setattr("train.stages.visible_gpus", list)
    monkeypatch.setattr("eval.eval_tmr.judge_motions", figures)
    return commands
