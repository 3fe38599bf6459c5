"""ReAlign's reward: its training, and its way into preference tuning."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from data_loaders.humanml import MotionBatch, open_dataset
from rewards.load import RewardOptions, load_reward
from rewards.realign import RealignReward
from tests.train.scripts import LOOP, Workspace, read_metrics, run_main
from train.data import open_splits
from train.loop import start_run
from train.train_reward import Options, RealignTask, build_model
from utils.errors import UserError
from utils.files import load_tensors
from utils.options import parse_options

SIZES = "--text_encoder_type builtin --latent_dim 16 --ff_size 16 --layers 3 --warmup_steps 0"


def arguments(space: Workspace, save_dir: Path, *changes: str) -> list[str]:
    data = ["--dataset", "tiny", "--data_dir", str(space.data), "--save_dir", str(save_dir)]
    return [*data, *LOOP.split(), *SIZES.split(), "--batch_size", "8", *changes]


def open_task(space: Workspace, save_dir: Path, *changes: str) -> RealignTask:
    options = parse_options(Options, arguments(space, save_dir, *changes))
    device = start_run(options).device
    data, val_data = open_splits(options)
    return RealignTask(options, build_model(options, data, device), data, val_data, pool=8)


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "realign"
    run_main("train.train_reward", arguments(workspace, folder))
    return folder


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def first_batch(task: RealignTask) -> MotionBatch:
    return next(task.batches(0))


def test_a_coin_noises_whole_batches_and_clean_ones_are_step_0(workspace, tmp_path) -> None:
    task = open_task(workspace, tmp_path / "x")
    batch = first_batch(task)
    motion, _ = task.model.normalize(batch.motion, batch.lengths)
    clean = 0
    for seed in range(60):
        seen = task.noised(motion, batch.lengths, seeded(seed))
        beyond = torch.arange(motion.shape[1]) >= batch.lengths[:, None]
        assert not seen.motion[beyond].any()
        if torch.equal(seen.motion, motion):
            clean += 1
            assert not seen.steps.any()
        else:
            assert len(seen.steps.unique()) > 1
    assert 15 <= clean <= 45


def test_noise_is_that_of_the_schedule_at_the_told_step(workspace, tmp_path) -> None:
    task = open_task(workspace, tmp_path / "x", "--noise_share", "1")
    motion, lengths = torch.zeros(4000, 1, 3), torch.ones(4000, dtype=torch.long)
    seen = task.noised(motion, lengths, seeded())
    for step in (0, 49):
        found = seen.motion[seen.steps == step].std()
        expected = (1 - task.diffusion.schedule.alphas_cumprod[step]).sqrt()
        assert float(found) == pytest.approx(float(expected), rel=0.15)


def test_padding_does_not_count(workspace, tmp_path) -> None:
    """A batch that is padded further has the same latents, and a loss of the same motions."""
    task = open_task(workspace, tmp_path / "x", "--noise_share", "0", "--dropout", "0")
    batch = first_batch(task)
    longer = MotionBatch(
        F.pad(batch.motion, (0, 0, 0, 7), value=9.0),
        batch.lengths,
        batch.captions,
        batch.tokens,
        batch.names,
    )
    losses = [float(task.step(b, 0, seeded()).loss.detach()) for b in (batch, longer)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_captions_of_one_meaning_are_no_negatives(workspace, tmp_path) -> None:
    task = open_task(workspace, tmp_path / "x")
    batch = first_batch(task)
    senses, meanings = task.senses(batch), task.data.meanings(batch.captions)
    same = torch.tensor([[a == b for a in meanings] for b in meanings])
    assert torch.equal(senses @ senses.T > 0.8, same)


def test_the_best_on_val_is_a_reward_of_the_chosen_mode(workspace, trained: Path) -> None:
    assert {p.name for p in trained.glob("*.pth")} == {"best_M1T0.pth", "last_M1T0.pth"}
    stats = open_dataset("tiny", "val", str(workspace.data)).stats
    reward = RealignReward.load(trained, stats)
    assert reward.model.mode.name == "M1T0"
    with pytest.raises(UserError, match=r"holds 0 files best_\*\.pth"):
        RealignReward.load(workspace.data, stats)


def test_a_resumed_run_equals_an_unbroken_one(workspace, tmp_path) -> None:
    for name, steps in (("whole", ["5"]), ("parts", ["2", "5"])):
        for number, count in enumerate(steps):
            resume = ["--resume"] if number else []
            words = arguments(workspace, tmp_path / name, "--num_steps", count, *resume)
            run_main("train.train_reward", words)
    files = [tmp_path / name / "last_M1T0.pth" for name in ("whole", "parts")]
    whole, parts = (load_tensors(file)["state_dict"] for file in files)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_the_reward_is_measured_when_it_is_loaded(workspace, trained: Path, capsys) -> None:
    splits = [open_dataset("tiny", split, str(workspace.data)) for split in ("train", "val")]
    options = RewardOptions(reward=["realign"], realign_path=str(trained), reward_step="none")
    options.validate()
    reward = load_reward(options, torch.device("cpu"), *splits)
    assert isinstance(reward, RealignReward)
    assert reward.model.step == "none"
    said = capsys.readouterr().out
    line = r"\(M1T0\): R@1 of \d+ real motions 0\.\d+ told step 0, 0\.\d+ told none"
    assert re.search(line, said)


def test_preference_tuning_takes_it(workspace, trained: Path, tmp_path) -> None:
    words = ["--reward", "realign", "--realign_path", str(trained), "--reward_mode", "M1T0"]
    workspace.run("train_sopo", tmp_path / "sopo", *words, "--tau_quantile", "0.5")
    lines = [line for line in read_metrics(tmp_path / "sopo") if "loss" in line]
    assert all(0 <= line["rewards/candidate_score"] <= 1 for line in lines)


def test_what_does_not_fit_is_one_line(workspace, trained: Path) -> None:
    val = open_dataset("tiny", "val", str(workspace.data))
    with pytest.raises(UserError, match="--reward realign needs --realign_path FILE"):
        RewardOptions(reward=["realign"]).validate()
    options = RewardOptions(
        reward=["realign"], realign_path=str(trained), reward_mode="M0T0", reward_step="noisy"
    )
    with pytest.raises(UserError, match=r"--reward_step noisy: this reward \(M0T0\) has no step"):
        load_reward(options, torch.device("cpu"), val)
    with pytest.raises(UserError, match="--reward_weights holds 1 for 2 rewards"):
        RewardOptions(reward=["tmr", "realign"], realign_path="x", reward_weights=[1.0]).validate()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--layers", "4"], "--layers 4: skip connections need an odd number"),
        (["--latent_dim", "18"], "--latent_dim 18 is no multiple of 4 heads"),
        (["--text_encoder_type", "sentence_t5", "--text_encoder_path", "nowhere"], "nowhere"),
    ],
)
def test_says_what_is_wrong(workspace, tmp_path, capsys, changes, message) -> None:
    with pytest.raises(SystemExit):
        run_main("train.train_reward", arguments(workspace, tmp_path / "x", *changes))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
