"""Two processes with half a batch each make the gradient of one process with the whole batch."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from tests.train.fakes import CAPTIONS, KEYS, FirstFeature, Spy, make_winners
from tests.train.ranks import WORLD, join, run_ranks
from train.preference.gate import GateDecision
from train.preference.pairs import PreferenceBatch
from train.train_sopo import Options, PreferenceTask
from utils.processes import average_gradients

ROWS = 4
METHODS = ("sft", "sopo")


def make_task(method: str) -> PreferenceTask:
    """A policy away from its reference, with tau amid the rewards of the candidates."""
    options = Options(method=method, num_candidates=2, tau=0.5)
    task = PreferenceTask(options, Spy.of(), FirstFeature(), data=None, val_data=None)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in task.module.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return task


def shard(pairs: PreferenceBatch, rows: slice) -> PreferenceBatch:
    names = [f.name for f in fields(pairs) if f.name != "gate"]
    gate = GateDecision(pairs.gate.use_unpreferred[rows], None)
    return replace(pairs, gate=gate, **{name: getattr(pairs, name)[rows] for name in names})


def loss_of(task: PreferenceTask, rows: slice) -> Tensor:
    """The loss of a step on these rows of one batch, whose draws are the same everywhere."""
    algorithm, winners, rng = task.algorithm, make_winners(), torch.Generator().manual_seed(0)
    t = torch.randint(algorithm.policy.levels, (ROWS,), generator=rng)
    noise = algorithm.policy.noise(winners, rng)
    condition = task.policy.encode_text(CAPTIONS)
    if not algorithm.sources:
        inputs = (winners, t, noise, condition)
        return task.policy.error(*(value[rows] for value in inputs)).mean()
    pairs = algorithm.sources[0](winners, KEYS, condition, rng)
    tau = pairs.reward_unpreferred.quantile(0.5).item()
    pairs = replace(pairs, gate=GateDecision(pairs.reward_unpreferred < tau, tau))
    return algorithm.pair_loss(shard(pairs, rows), t[rows], noise[rows])[0].loss.mean()


def gradients(
    method: str, rows: slice, reduce: Callable[[torch.nn.Module], None] = lambda module: None
) -> list[Tensor]:
    task = make_task(method)
    loss_of(task, rows).backward()
    reduce(task.module)
    return [parameter.grad for parameter in task.module.parameters()]


def work(rank: int, port: int, folder: str) -> None:
    """One process; leaves its gradients for every method in the folder."""
    join(rank, port)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == WORLD
    half = ROWS // WORLD
    rows = slice(rank * half, (rank + 1) * half)
    for method in METHODS:
        found = gradients(
            method, rows, lambda module: average_gradients(accelerator, module, torch.zeros(()))
        )
        torch.save(found, Path(folder) / f"{method}{rank}.pt")
    accelerator.end_training()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both processes left there."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(work, folder)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_make_the_gradient_of_one(method: str, folder: Path) -> None:
    whole = gradients(method, slice(None))
    half = gradients(method, slice(0, ROWS // WORLD))
    assert max(float((a - b).abs().max()) for a, b in zip(half, whole, strict=True)) > 1e-4
    ranks = [torch.load(folder / f"{method}{rank}.pt") for rank in range(WORLD)]
    for first, second, expected in zip(*ranks, whole, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-5)
