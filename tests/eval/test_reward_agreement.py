"""What the reward ranks best and worst is what is compared, and agreement is that of ranks."""

import sys
from dataclasses import replace

import pytest
import torch

from data_loaders.humanml import MotionDataset, open_dataset
from eval import reward_agreement as script
from eval.motion_sets import MotionSet, real_motions
from eval.reward_agreement import agreement, choose, compare
from model.seam import Samples
from prepare.procedural import dataset as synthetic
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.tmr.tiny import tiny_tmr
from utils.files import read_json


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("agreement")
    synthetic.build(synthetic.Options(out=str(root / "data"), num_clips=20, captions_per_clip=1))
    names = (root / "data" / "all.txt").read_text().splitlines()
    (root / "data" / "val.txt").write_text("\n".join(names[:6]) + "\n")
    for name, seed in {"reward": 0, "judge": 1}.items():
        tiny_tmr(seed, features=263).save(root / name)
    write_tiny_checkpoint(root / "base", 1)
    return root


@pytest.fixture(scope="module")
def data(place) -> MotionDataset:
    return open_dataset("tiny", "val", str(place / "data"), random_items=False)


class Scale:
    """Scores a motion by its mean: higher for the same motion with a larger factor."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def score(self, raw: Samples, captions: list[str]) -> torch.Tensor:
        return self.sign * raw.x.abs().mean(dim=(1, 2))


def scaled(real: MotionSet, factors: torch.Tensor) -> MotionSet:
    return replace(real, motions=real.motions * factors[:, None, None])


def test_the_rows_hold_what_the_reward_ranks(data: MotionDataset) -> None:
    real = real_motions(data, 4)
    factors = torch.tensor([[1.0, 0.5, 2.0, 1.0, 1.0, 1.0], [0.5, 1.0, 1.0, 2.0, 0.9, 3.0]])
    drawn = [scaled(real, row) for row in factors]
    rows, found = compare(real, drawn, data, Scale(), Scale(), quantile=0.5)
    best, first, worst, gated, clips = rows.values()
    assert list(rows)[:4] == ["best of 2", "first", "worst of 2", "worst of 2, lowest 50%"]
    scores = torch.stack([Scale().score(m.samples, m.captions) for m in drawn])
    assert best.reward == pytest.approx(float(scores.amax(0).mean()), rel=1e-5)
    assert worst.reward == pytest.approx(float(scores.amin(0).mean()), rel=1e-5)
    assert first.reward == pytest.approx(float(scores[0].mean()), rel=1e-5)
    lowest, passing = scores.amin(0).sort()
    lowest, passing = lowest[:3], passing[:3]
    assert (gated.motions, worst.motions, clips.motions) == (3, 6, 3)
    own = Scale().score(real.samples, real.captions)[passing]
    assert clips.reward == pytest.approx(float(own.mean()), rel=1e-5)
    assert gated.reward == pytest.approx(float(lowest.mean()), rel=1e-5)
    assert (found.same_worst, found.rank_correlation) == (1, pytest.approx(1))
    assert compare(real, drawn, data, Scale(), Scale(-1.0), 0.5)[1].same_worst == 0


def test_every_caption_keeps_its_own_motion(data: MotionDataset) -> None:
    real = real_motions(data, 4)
    drawn = [scaled(real, torch.full((6,), float(k))) for k in range(3)]
    chosen = choose(drawn, torch.tensor([0, 1, 2, 2, 1, 0]))
    expected = scaled(real, torch.tensor([0.0, 1, 2, 2, 1, 0]))
    assert torch.equal(chosen.motions, expected.motions)
    assert chosen.captions == real.captions


def test_agreement_is_measured_within_captions() -> None:
    rewards = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    found = agreement(rewards, torch.tensor([[10.0, 2.0], [20.0, 3.0], [30.0, 1.0]]))
    assert found.same_worst == 1  # the first of the first caption, the third of the second
    assert found.rank_correlation == pytest.approx((1 + 0.5) / 2)


def test_the_script_writes_what_it_prints(place, tmp_path, monkeypatch, capsys) -> None:
    words = f"--dataset tiny --data_dir {place / 'data'} --reward_path {place / 'reward'} "
    words += f"--judge_path {place / 'judge'} --num_candidates 2 --device cpu --names base "
    words += f"--model_path {place / 'base' / 'model000000007.pt'} --output {tmp_path / 'o.json'}"
    monkeypatch.setattr(sys, "argv", ["reward_agreement", *words.split()])
    script.main()
    report, printed = read_json(tmp_path / "o.json"), capsys.readouterr().out
    kinds = ("best of 2", "first", "worst of 2", "worst of 2, lowest 25%")
    names = {"clips", "base: clips of those", *(f"base: {kind}" for kind in kinds)}
    assert set(report["rows"]) == names
    assert report["rows"]["clips"]["facts"] == 1
    for name, row in report["rows"].items():
        assert (
            f"| {name} | {row['motions']} | {row['reward']:.3f} | {row['judge']:.3f} |" in printed
        )
    rewards = [report["rows"][f"base: {kind}"]["reward"] for kind in kinds]
    assert rewards == sorted(rewards, reverse=True)
    assert 0 <= report["agreement"]["base"]["same_worst"] <= 1


def test_a_gate_that_nothing_passes_is_refused(place, monkeypatch, capsys) -> None:
    words = "--reward_path a --judge_path b --model_path c --tau_quantile 0"
    monkeypatch.setattr(sys, "argv", ["reward_agreement", *words.split()])
    with pytest.raises(SystemExit):
        script.main()
    assert "--tau_quantile 0.0 is a share in (0, 1]" in capsys.readouterr().err
