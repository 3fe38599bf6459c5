"""The benchmark: both paths do the same work, and what is reported of it."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from data_loaders.skeleton import HUMANML
from diffusion.sampling import SamplerOptions
from eval.benchmark import Options, load_networks, make_clips, run
from eval.speed.few_steps import StepComparison
from eval.speed.latent import LatentWorkload
from eval.speed.plain_path import PlainGenerator, PlainMDM, without_fused_layers
from eval.speed.timing import Timing, measure_item
from eval.speed.workload import FULL, QUICK, Item, Workload, network_flops
from model.latent.denoiser import DenoiserConfig, LatentDenoiser
from model.latent.vae import MotionVAE, VAEConfig
from model.mdm.network import MDM
from rewards.tmr import TMRReward
from tests.model.tiny import (
    FEATURES,
    TEXT_WIDTH,
    random_condition,
    random_motion,
    tiny_generator,
    tiny_mdm,
)
from utils.errors import UserError
from utils.masks import length_mask
from utils.options import parse_options

CPU = torch.device("cpu")
ARCHS = ["trans_enc", "trans_dec"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmark") / "data"
    make_clips(path, QUICK.clips)
    return path


@pytest.fixture(scope="module")
def work(folder: Path) -> Workload:
    networks = load_networks(Options(quick=True), QUICK, folder, CPU, torch.float32)
    return Workload(QUICK, folder, *networks, torch.float32)


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_the_plain_network_is_the_same_function(arch: str) -> None:
    model = tiny_mdm(arch=arch)
    x, mask = random_motion(2, 9, FEATURES), length_mask(torch.tensor([9, 5]), 9)
    inputs = (x, torch.tensor([3, 6]), random_condition([1, 1]), mask)
    with without_fused_layers():
        plain = PlainMDM.of(model)(*inputs)
    torch.testing.assert_close(model(*inputs)[mask], plain[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("mask_frames", [False, True])
def test_the_plain_generator_samples_the_same_motions(arch: str, mask_frames: bool) -> None:
    generator = tiny_generator(HUMANML, arch=arch, mask_frames=mask_frames)
    captions, lengths = ["a person walks", "a man waves"], torch.tensor([196, 40])
    motions = []
    for g in (generator, PlainGenerator.of(generator)):
        rng = torch.Generator().manual_seed(0)
        motions.append(g.draw(g.encode_text(captions), lengths, rng))
    valid = length_mask(lengths, 196)
    torch.testing.assert_close(motions[0][valid], motions[1][valid], rtol=1e-3, atol=1e-4)


def test_both_paths_have_the_same_loss_and_rewards(work: Workload) -> None:
    with torch.no_grad():
        fast, plain = (
            steps.algorithm.pair_loss(*steps.pairs)[0].loss for steps in (work.fast, work.plain)
        )
    assert fast.shape == plain.shape
    scores = [
        reward.score(work.raw, work.batch.captions) for reward in (work.reward, work.plain_reward)
    ]
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-5)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_plain_latent_path_gives_the_same(work: Workload) -> None:
    latent = LatentWorkload(work)
    both = latent.generator, latent.plain_generator
    captions, lengths = ["a person jumps", "a man waves"], torch.tensor([60, 196])
    drawn = [g.sample(g.encode_text(captions), g.blank(lengths), seeded()) for g in both]
    torch.testing.assert_close(drawn[0].x, drawn[1].x, rtol=1e-3, atol=1e-3)
    motions = [g.decode(drawn[0]).x for g in both]
    torch.testing.assert_close(*motions, rtol=1e-3, atol=1e-3)
    clips = [g.encode(work.raw, seeded()).x for g in both]
    torch.testing.assert_close(*clips, rtol=1e-3, atol=1e-4)
    pairs = latent.fast.pairs
    with torch.no_grad():
        errors = [s.algorithm.errors(*pairs)[0].policy for s in (latent.fast, latent.plain)]
    torch.testing.assert_close(*errors, rtol=1e-3, atol=1e-4)


def test_the_latent_rows_have_the_published_sizes() -> None:
    with torch.device("meta"):
        trunk = vars(FULL.latent.trunk)
        vae = MotionVAE(VAEConfig(**trunk))
        text = {"text_dim": FULL.latent.text_width, "time_dim": FULL.latent.text_width}
        denoiser = LatentDenoiser(DenoiserConfig(**trunk, **text))
    sizes = [sum(p.numel() for p in network.parameters()) for network in (vae, denoiser)]
    assert sizes == [18_032_135, 8_221_184]
    assert (FULL.latent.steps, FULL.latent.candidates) == (50, 2)


@pytest.mark.parametrize("arch", ARCHS)
def test_counted_operations_are_those_that_are_executed(arch: str) -> None:
    model = tiny_mdm(arch=arch, latent_dim=64, ff_size=128)
    tokens = 4 if arch == "trans_dec" else 1
    x, condition = random_motion(1, 50, FEATURES), random_condition([tokens])
    # in bfloat16 attention is two products; the counter does not know the CPU's fused kernel
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        model(x, torch.tensor([3]), condition)
    text_and_time = 2 * tokens * TEXT_WIDTH * 64 + 2 * 2 * 64**2
    assert counter.get_total_flops() == network_flops(model, 50, tokens) + text_and_time


def test_the_papers_network_needs_the_known_number_of_operations() -> None:
    with torch.device("meta"):
        model = MDM(FULL.network, num_features=263)
    assert network_flops(model, 196, 1) == pytest.approx(7.3e9, rel=0.01)


def test_a_timing_is_median_quartiles_and_share() -> None:
    timing = Timing.of([4.0, 1.0, 2.0, 3.0, 5.0], flops=6.0, peak=4.0)
    assert timing == Timing(3.0, 3.0, 0.5)
    assert Timing.of([2.0], flops=0.0, peak=1.0) == Timing(2.0, 0.0, None)


def test_paths_take_turns_and_the_first_is_not_counted() -> None:
    calls: list[str] = []
    item = Item("work", lambda: calls.append("fast"), lambda: calls.append("plain"))
    row = measure_item(item, CPU, 2, {torch.float32: 1.0})
    assert calls == ["fast", "plain"] * 3
    assert row.gain == pytest.approx(row.plain.median / row.fast.median)


def test_clips_under_further_names_are_read_as_clips(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("eval.benchmark.MADE_CLIPS", 60)
    make_clips(tmp_path / "data", 150)
    names = (tmp_path / "data" / "train.txt").read_text().split()
    assert len(names) == len(set(names)) > 120
    assert len(list((tmp_path / "data" / "new_joint_vecs").glob("*.npy"))) == 150


def test_fewer_steps_are_compared_on_one_random_path(work: Workload) -> None:
    """All steps of the same sampler choose as the exact one does; no reward changes."""
    batch = work.batch
    comparison = StepComparison(work.generator, work.reward, batch.captions, batch.lengths, 3)
    rows = comparison.run()
    assert [(row.sampler, row.steps) for row in rows[:2]] == [("ancestral", 6), ("ancestral", 5)]
    assert {row.sampler for row in rows[1:]} == {"ancestral", "ddim", "dpm", "dpm_sde"}
    assert (rows[0].agreement, rows[0].difference) == (1.0, 0.0)
    changes = {row.sampler: row.difference for row in rows[1:]}
    assert 0 < changes["ancestral"] < changes["ddim"]
    sde, ode = (comparison._rewards(SamplerOptions(name, 5))[0] for name in ("dpm_sde", "dpm"))
    assert not torch.equal(sde, ode)


def test_the_report_holds_every_item_beside_its_plain_path(folder: Path, capsys) -> None:
    options = parse_options(Options, ["--quick", "--repetitions", "1", "--few_steps", "false"])
    content = run(options, folder, Accelerator(cpu=True))
    rows = {row["name"]: row for row in content["rows"]}
    assert list(rows) == [
        *("start-up, cold", "start-up, warm", "text encoding", "denoiser, guided", "rollout"),
        *("reward", "loss step", "SoPo step", "SoPo step, 2 solver steps"),
        *("generation of 32", "evaluation of 32", "MLD rollout", "MLD loss step"),
        *("MLD SoPo step", "MLD generation of 32", "MLD evaluation of 32"),
    ]
    assert all(row["plain"] for name, row in rows.items() if name != "start-up, cold")
    assert 0 < rows["SoPo step"]["fast"]["share"] < 1
    assert content["peaks"].keys() == {"float32", "bfloat16"}
    median = {name: row["fast"]["median"] for name, row in rows.items()}
    assert content["latent_gain"] == median["SoPo step"] / median["MLD SoPo step"]
    said = capsys.readouterr().out
    assert "| SoPo step |" in said
    assert f"a SoPo step of MLD* is {content['latent_gain']:.1f}x as fast" in said
    json.dumps(content)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_motions", "40"], "multiple of 32"),
        (["--model_path", "model000000001.pt"], "both --model_path and --reward_path"),
    ],
)
def test_what_cannot_work_is_told(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_options(Options, arguments)


def test_rewards_are_never_read_from_the_plain_cache(work: Workload) -> None:
    assert isinstance(work.plain_reward, TMRReward)
    work.plain_reward.embed_texts(["a person jumps"])
    assert not work.plain_reward._texts


def test_items_are_chosen_by_the_start_of_their_names(folder) -> None:
    arguments = ["--quick", "--repetitions", "1", "--few_steps", "false"]
    options = parse_options(Options, [*arguments, "--items", "text", "loss"])
    rows = run(options, folder, Accelerator(cpu=True))["rows"]
    assert [row["name"] for row in rows] == ["text encoding", "loss step"]
