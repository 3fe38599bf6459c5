"""Preference tuning of pictures: every method, its pairs, and whole runs of the command."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_loaders.images.dataset import PictureDataset, PictureOptions, open_pictures
from model.image.load import ImageModelOptions, load_image_generator, with_lora
from model.image.lora import FILE
from model.image.noising import flow_noising
from model.seam import Samples
from sample.pictures import generate_pictures
from tests.data_loaders.squares import write_squares
from tests.model.image.families import FAMILIES, family
from tests.model.image.tiny import (
    CAPTIONS,
    SIZE,
    Redness,
    Speechless,
    disturb,
    tiny_generator,
    tiny_pipeline,
)
from tests.train.image_runs import image_arguments
from tests.train.scripts import read_metrics, refused, run_main
from train.image_pairs import PicturePairs
from train.preference.methods import METHODS
from train.train_sopo_image import ImagePreferenceTask, Options
from utils.errors import UserError
from utils.extras import extra
from utils.files import read_json

pytest.importorskip("diffusers")
pytest.importorskip("peft")
pytest.importorskip("PIL")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight pictures with captions, of which six have a loser of the other colour."""
    return write_squares(tmp_path_factory.mktemp("pictures"), SIZE)


def make_task(folder: Path, reward=None, **changes) -> tuple[ImagePreferenceTask, PictureDataset]:
    options = Options(
        **{"save_dir": "unused", "data_dir": str(folder), "batch_size": 4, "tau": 25.0, **changes}
    )
    options.validate()
    reward = reward or Redness()
    data = open_pictures(PictureOptions(data_dir=str(folder)), "train", SIZE)
    store = None
    if options.pairs_path:
        store = PicturePairs.open(options, options.pairs_path, SIZE, reward, CPU)
        data = store.restrict(data)
    policy = tiny_generator()
    return ImagePreferenceTask(options, policy, reward, data, data, store), data


def one_step(task: ImagePreferenceTask):
    batch = next(task.batches(0))
    return task.step(batch, 0, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_starts_at_no_margin_and_trains_the_adapters(folder, method) -> None:
    task, _ = make_task(folder, method=method, num_candidates=2)
    result = one_step(task)
    if METHODS[method]:
        figures = [v for k, v in result.metrics.items() if k.endswith("rewards/margins")]
        assert all(float(value) == 0 for value in figures), "the policy is the reference at first"
        expected = len(METHODS[method]) * torch.tensor(2.0).log()
        torch.testing.assert_close(result.loss.detach(), expected)
    result.loss.backward()
    assert sum(p.grad.abs().sum() for p in task.module.parameters() if p.grad is not None) > 0


def test_pairs_of_the_data_prefer_its_winners(folder) -> None:
    task, data = make_task(folder, method="offline_dpo")
    assert len(data) == 6, "the rows without a loser are left out"
    metrics = one_step(task).metrics
    batch = next(task.batches(0))
    losers = Redness().score(Samples(data.losers(batch)), [""] * 4)
    torch.testing.assert_close(metrics["rewards/unpreferred_score"], losers.mean())


def test_a_reward_without_embedding_weighs_by_beta_alone(folder) -> None:
    task, _ = make_task(folder, Speechless(), beta=0.5, num_candidates=2)
    assert task.lost_weights
    assert float(one_step(task).metrics["weights/beta_w"]) == 0.5
    other, _ = make_task(folder, Redness(), beta=0.5, num_candidates=2)
    assert not other.lost_weights
    assert float(one_step(other).metrics["weights/beta_w"]) > 0.5
    unweighted, _ = make_task(folder, Speechless(), method="usopo", num_candidates=2)
    assert not unweighted.lost_weights, "it has no weights to lose"


def test_tau_is_on_the_rewards_own_scale(folder) -> None:
    shares = []
    for tau in (20.0, 30.0):
        task, _ = make_task(folder, tau=tau, num_candidates=2)
        shares.append(float(one_step(task).metrics["gate/share_below_tau"]))
    assert shares == [0, 1]
    assert Options().tau is None
    with pytest.raises(UserError, match="exclude each other"):
        Options(tau=25.0, tau_quantile=0.5).validate()
    by_quantile = Options()
    by_quantile.validate()
    assert by_quantile.tau_quantile == 0.5


def test_the_reference_stays_while_the_policy_learns(folder) -> None:
    task, _ = make_task(folder, num_candidates=2)
    policy, reference = task.generator, task.algorithm.reference
    raw, keys = task.samples_of(next(task.batches(0)))
    latents = policy.encode(raw, torch.Generator().manual_seed(1))
    inputs = (latents, torch.full((4,), 500), torch.ones_like(latents.x))
    condition = policy.encode_text([key.caption for key in keys])
    before = reference.error(*inputs, condition)
    disturb(policy)
    assert torch.equal(before, reference.error(*inputs, condition))
    assert not torch.allclose(before, policy.error(*inputs, condition))


@pytest.fixture
def arguments(folder, tmp_path) -> list[str]:
    """The command on a saved pipeline and a plug-in reward."""
    tiny_pipeline().save_pretrained(tmp_path / "pipeline")
    return image_arguments(folder, tmp_path / "pipeline", tmp_path / "run")


def test_a_whole_run_is_saved_and_goes_on(arguments, tmp_path, capsys) -> None:
    run_main("train.train_sopo_image", arguments)
    run = tmp_path / "run"
    assert "worst-of-K reward on the base model" in capsys.readouterr().out
    assert (run / FILE).read_bytes() == (run / "lora000000002.safetensors").read_bytes()
    assert read_json(run / "best.json")["reward"] > 0
    state = torch.load(run / "resume.pt", weights_only=True)
    assert all("weights." in name for name in state["module"]), "only adapters are kept"
    run_main("train.train_sopo_image", [*arguments, "--num_steps", "3", "--resume"])
    assert (run / "lora000000003.safetensors").is_file()


def test_weights_are_averaged_where_that_is_asked(folder, tmp_path) -> None:
    task, _ = make_task(folder, num_candidates=2)
    average = replace_weights(task)
    path = task.save(tmp_path, 1, average, best=False)
    assert all(float(value.abs().max()) == 2 for value in load_file(path).values())


def replace_weights(task: ImagePreferenceTask) -> torch.nn.Module:
    """A copy of the adapters, as the loop averages them, whose weights are all 2."""
    average = copy.deepcopy(task.module)
    with torch.no_grad():
        for weight in average.parameters():
            weight.fill_(2.0)
    return average


def test_noise_of_a_flow_is_translated_to_levels(folder) -> None:
    task, _ = make_task(folder, loser_min_t=0.4, num_candidates=2)
    assert task.algorithm.options.loser_min_t == 0.4, "t / T where that is the noise"
    scheduler = extra("diffusers").FlowMatchEulerDiscreteScheduler(shift=3.0)
    flow = replace(task.generator, noising=flow_noising(scheduler, "uniform"))
    options = replace(task.options, loser_min_t=0.75)
    other = ImagePreferenceTask(options, flow, Redness(), task.data, task.data)
    assert other.algorithm.options.loser_min_t == pytest.approx(0.5, abs=0.01)
    assert other.options.loser_min_t == 0.75, "as it was given, for args.json"


@pytest.mark.parametrize("name", list(FAMILIES))
def test_pipelines_of_every_class_are_tuned(name: str, folder, tmp_path) -> None:
    pipeline, run = tmp_path / "pipeline", tmp_path / "run"
    family(name).save_pretrained(pipeline)
    changes = ("--lr", "0.05", "--resolution", str(SIZE))
    run_main("train.train_sopo_image", [*image_arguments(folder, pipeline, run), *changes])
    first, second = (line for line in read_metrics(run) if "loss" in line)
    assert first["loss"] == pytest.approx(math.log(2)), "the policy is the reference at first"
    assert second["loss"] != first["loss"]
    base = load_image_generator(ImageModelOptions(str(pipeline)), CPU, steps=2)
    before = generate_pictures(base, CAPTIONS, 0, SIZE, 4)
    after = generate_pictures(with_lora(base, str(run)), CAPTIONS, 0, SIZE, 4)
    assert after.isfinite().all()
    assert not torch.allclose(before, after)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidate_start": "0.5"}, "--candidate_start"),
        ({"reward": "hps"}, "--reward hps is unknown"),
        ({"data_dir": "nowhere"}, "is no folder"),
        ({"method": "offline_dpo", "pairs_path": "nowhere"}, "is no folder"),
        ({"lora_targets": "nowhere"}, "--lora_targets nowhere"),
        ({"resolution": "9"}, "multiple of 2"),
        ({"batch_size": "99"}, "--batch_size 99"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, changes, message, tmp_path, capsys):
    words = [w for name, value in changes.items() for w in (f"--{name}", value)]
    assert message in refused("train.train_sopo_image", [*arguments, *words], capsys)
    assert not (tmp_path / "run").exists()
