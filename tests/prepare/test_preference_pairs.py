"""Generated pairs: what is in them, resuming, and training on them from start to end."""

import json
from pathlib import Path

import pytest
import torch

from data_loaders.humanml import open_dataset
from data_loaders.skeleton import HUMANML, KIT
from model.families import load_generator
from model.seam import Samples
from prepare.preference_pairs import generate
from rewards.tmr import TMRReward
from tests.data_loaders.datasets import caption_line, write_dataset
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.tmr.tiny import tiny_tmr
from tests.train.scripts import contents, read_metrics, run_main
from tmr.model import TMR
from train.preference.fixed_pairs import PairStore, shard_path
from train.preference.pairs import CandidateSampler

CLIPS = 7  # the last one says the same twice: 13 captions, 4 files


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    lengths = {f"{i:06d}": 42 + 5 * i for i in range(CLIPS)}
    captions = {f"{CLIPS - 1:06d}": 2 * caption_line("a person turns")}
    write_dataset(root / "data", lengths, captions)
    write_tiny_checkpoint(root / "base", skeleton=HUMANML)
    tiny_tmr(features=HUMANML.feature_dim).save(root / "reward")
    return root


def arguments(place: Path, out: Path, *changes: str) -> list[str]:
    return [
        *("--model_path", str(place / "base" / "model000000007.pt")),
        *("--reward_path", str(place / "reward")),
        *("--dataset", "humanml", "--data_dir", str(place / "data")),
        *("--out", str(out), "--device", "cpu", "--num_candidates", "3", "--batch_size", "4"),
        *changes,
    ]


def prepare(place: Path, out: Path, *changes: str) -> Path:
    run_main("prepare.preference_pairs", arguments(place, out, *changes))
    return out


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    return prepare(place, place / "whole")


def without_provenance(folder: Path) -> dict[str, object]:
    files: dict[str, object] = dict(contents(folder))
    index = json.loads(files.pop("index.json"))
    assert index.pop("provenance")["torch"]
    return files | {"index": index}


def test_every_training_caption_has_a_pair_of_its_clip_s_length(place: Path, whole: Path) -> None:
    store = PairStore(whole)
    data = open_dataset("humanml", "train", str(place / "data"))
    expected = {(e.name, c.text): e.length // 4 * 4 for e in data.entries for c in e.captions}
    assert {(k.clip, k.caption): k.length for k in store.index.keys} == expected
    assert (len(expected), len(store.index.shards)) == (13, 4)
    assert store.rewards.shape == (13, 3)
    store.check(data, load_generator(place / "base" / "model000000007.pt").skeleton)


def test_stored_motions_have_the_best_and_the_worst_reward(place: Path, whole: Path) -> None:
    store, reward = PairStore(whole), TMRReward(TMR.load(place / "reward"))
    for row, key in enumerate(store.index.keys):
        length = torch.tensor([key.length])
        pair = [Samples(motion.unsqueeze(0), length) for motion in store.load(row)]
        found = [reward.score(motion, [key.caption]) for motion in pair]
        expected = [store.rewards[row].max(), store.rewards[row].min()]
        torch.testing.assert_close(torch.cat(found), torch.stack(expected), rtol=0, atol=1e-5)
        assert found[0] > found[1]


def test_a_run_that_was_killed_goes_on_to_the_same_pairs(
    place: Path, whole: Path, tmp_path
) -> None:
    parts = prepare(place, tmp_path / "parts")
    for number in (1, 3):
        shard_path(parts, number).unlink()
    kept = shard_path(parts, 0).stat().st_mtime_ns
    prepare(place, parts, "--resume")
    assert without_provenance(parts) == without_provenance(whole)
    assert shard_path(parts, 0).stat().st_mtime_ns == kept, "what is there is not made again"


def test_every_file_has_noise_of_its_own(place: Path, whole: Path, tmp_path) -> None:
    seeds: list[int] = []

    class Recorder(CandidateSampler):
        def __call__(self, winners, captions, condition, rng):
            seeds.append(rng.initial_seed())
            return super().__call__(winners, captions, condition, rng)

    policy = load_generator(place / "base" / "model000000007.pt")
    recorder = Recorder(policy, TMRReward(TMR.load(place / "reward")), num_candidates=3)
    data = open_dataset("humanml", "train", str(place / "data"))
    generate(PairStore(whole).index, data, recorder, tmp_path, seed=10)
    assert len(set(seeds)) == len(seeds) == 4
    found = contents(tmp_path)
    assert found == {name: contents(whole)[name] for name in found}, "as the command writes them"


def test_the_seed_decides(place: Path, whole: Path, tmp_path) -> None:
    other = PairStore(prepare(place, tmp_path / "other", "--seed", "11"))
    assert not torch.equal(other.rewards, PairStore(whole).rewards)


def test_some_captions_are_drawn_at_random(place: Path, whole: Path, tmp_path) -> None:
    chosen = PairStore(prepare(place, tmp_path / "five", "--num_captions", "5"))
    assert len(chosen.rows) == 5
    assert set(chosen.rows) < set(PairStore(whole).rows)


def refusal(capsys, module: str, given: list[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_main(module, given)
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert error.startswith("error: ")
    return error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--num_candidates", "1"], "--num_candidates 1 is too small"),
        (["--num_captions", "99"], "--num_captions 99 exceeds the 13 captions"),
        (["--reward_path", "nowhere"], "nowhere is not a TMR run folder"),
        (["--model_path", "nowhere/model000000001.pt"], "does not exist"),
        (["--reward", "evaluator", "--evaluator_dir", "no"], "the evaluation lacks no/"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    place: Path, tmp_path, capsys, changes: list[str], message: str
) -> None:
    out = tmp_path / "out"
    given = arguments(place, out, *changes)
    assert message in refusal(capsys, "prepare.preference_pairs", given)
    assert not out.exists()


def test_a_model_of_another_skeleton_is_refused(place: Path, tmp_path, capsys) -> None:
    path = write_tiny_checkpoint(tmp_path / "kit", skeleton=KIT)
    given = arguments(place, tmp_path / "out", "--model_path", str(path))
    assert "makes kit motions of 251 features, the dataset holds humanml motions" in refusal(
        capsys, "prepare.preference_pairs", given
    )


def test_earlier_pairs_are_kept_unless_told_otherwise(
    place: Path, whole: Path, tmp_path, capsys
) -> None:
    before = contents(whole)
    message = refusal(capsys, "prepare.preference_pairs", arguments(place, whole))
    assert "already holds files" in message
    given = arguments(place, whole, "--resume", "--guidance_param", "1")
    message = refusal(capsys, "prepare.preference_pairs", given)
    assert "was begun with --guidance_param None -> 1.0" in message
    assert contents(whole) == before
    many = prepare(place, tmp_path / "many", "--batch_size", "2")
    few = prepare(place, many, "--num_captions", "4", "--overwrite")
    assert len(list(few.glob("pairs_*.safetensors"))) == 1, "nothing of the earlier run is left"


def train(place: Path, pairs: Path, out: Path, *changes: str) -> list[str]:
    loop = "--device cpu --train_platform_type NoPlatform --log_interval 1 --num_steps 2 --lr 1e-3"
    own = "--batch_size 4 --num_candidates 2 --val_motions 8 --lr_schedule constant"
    return [
        *("--model_path", str(place / "base" / "model000000007.pt")),
        *("--reward_path", str(place / "reward"), "--pairs_path", str(pairs)),
        *("--dataset", "humanml", "--data_dir", str(place / "data"), "--save_dir", str(out)),
        *f"{loop} {own}".split(),
        *changes,
    ]


@pytest.mark.parametrize("method", ["offline_dpo", "combined_dpo", "modipo_t"])
def test_the_methods_train_on_the_pairs(place: Path, whole: Path, tmp_path, method: str) -> None:
    run_main("train.train_sopo", train(place, whole, tmp_path, "--method", method))
    steps = [m for m in read_metrics(tmp_path) if "loss" in m]
    kinds = 2 if method == "combined_dpo" else 1
    assert steps[0]["loss"] == pytest.approx(kinds * 0.693147, abs=1e-3)
    assert steps[1]["loss"] != steps[0]["loss"]


def test_training_refuses_pairs_that_do_not_fit(place: Path, whole: Path, tmp_path, capsys) -> None:
    given = train(place, whole, tmp_path / "a", "--method", "modipo_g")
    message = refusal(capsys, "train.train_sopo", given)
    assert "needs pairs ranked by --reward evaluator" in message
    few = prepare(place, tmp_path / "few", "--num_captions", "2")
    given = train(place, few, tmp_path / "b", "--method", "offline_dpo")
    assert "do not fill a batch of --batch_size 4" in refusal(capsys, "train.train_sopo", given)
    write_dataset(tmp_path / "other", {f"{i:06d}": 60 for i in range(CLIPS)})
    given = train(place, whole, tmp_path / "c", "--method", "offline_dpo")
    given += ["--data_dir", str(tmp_path / "other")]
    assert "is not in the training split of" in refusal(capsys, "train.train_sopo", given)
