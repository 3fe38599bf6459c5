"""Every method against its row of the table: sources, gate, weight, and the sum of its losses."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.seam import Samples
from tests.train.fakes import CAPTIONS, KEYS, FirstFeature, Spy, make_batch, make_winners
from tests.train.stored_pairs import write_pairs
from tests.train.test_train_sopo import disturb, rng
from train.preference.fixed_pairs import PairStore
from train.preference.methods import METHODS
from train.train_sopo import Options, PreferenceTask, open_pairs
from utils.errors import UserError

# method: preferred, unpreferred, gate, weighted; as in the paper's tables
TABLE = {
    "sopo": [("dataset", "worst", "below_tau", True)],
    "dsopo": [("dataset", "worst", "always", False)],
    "usopo": [("dataset", "worst", "below_tau", False)],
    "sopo_wo_vu": [("dataset", "worst", "never", True)],
    "offline_dpo": [("dataset", "fixed", "always", False)],
    "online_dpo": [("best", "worst", "always", False)],
    "combined_dpo": [("dataset", "fixed", "always", False), ("best", "worst", "always", False)],
    "modipo_t": [("fixed", "fixed", "always", False)],
    "modipo_o": [("best", "worst", "always", False)],
    "modipo_g": [("fixed", "fixed", "always", False)],
    "sft": [],
}
PREFERENCE = [method for method in TABLE if TABLE[method]]
DPO = ["dsopo", "offline_dpo", "online_dpo", "combined_dpo", "modipo_t", "modipo_g", "modipo_o"]
BETA, C, TAU = 0.7, 1.5, 0.5


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> PairStore:
    return PairStore(write_pairs(tmp_path_factory.mktemp("pairs")))


def make_task(method: str, store: PairStore, **changes) -> PreferenceTask:
    """A policy that has moved, and a tau that about half of its worst motions pass."""
    settings = {"num_candidates": 3, "tau": TAU, "beta": BETA, "preferred_weight_c": C}
    options = Options(save_dir="", model_path="", method=method, **(settings | changes))
    task = PreferenceTask(options, Spy.of(), FirstFeature(), None, None, store)
    disturb(task)
    return task


def test_the_table_of_methods_is_the_paper_s() -> None:
    found = {
        name: [(p.preferred, p.unpreferred, p.gate, p.weighted) for p in pairings]
        for name, pairings in METHODS.items()
    }
    assert found == TABLE


@pytest.mark.parametrize("method", [m for m in PREFERENCE if len(TABLE[m]) == 1])
def test_the_margin_is_what_the_loss_is_made_of(method: str, store) -> None:
    batch = make_batch()
    outcome = make_task(method, store).algorithm.step(
        Samples(batch.motion, batch.lengths), KEYS, rng()
    )
    torch.testing.assert_close(outcome.loss.detach(), F.softplus(-outcome.margin))


def test_a_pair_without_a_margin_is_no_success(store) -> None:
    """Policy and reference agree at the first step."""
    options = Options(save_dir="", model_path="", method="dsopo", num_candidates=2)
    task = PreferenceTask(options, Spy.of(), FirstFeature(), None, None, store)
    assert task.step(make_batch(), 0, rng()).metrics["rewards/accuracies"] == 0


def drawn_by_hand(task: PreferenceTask, store: PairStore) -> tuple[dict[str, Tensor], Tensor]:
    """The motions that a step may compare, by the table's words, and the rewards ``[4, K]``."""
    winners, policy = make_winners(), task.policy
    condition = policy.encode_text(CAPTIONS)
    drawn = task.algorithm.candidates(winners, CAPTIONS, condition, redrawn())
    generated = drawn.samples.x.view(4, -1, *winners.x.shape[1:])
    rows, stored = torch.arange(4), store.lookup(KEYS, winners)
    motions = {
        "dataset": winners.x,
        "best": generated[rows, drawn.rewards.argmax(1)],
        "worst": generated[rows, drawn.rewards.argmin(1)],
        "fixed preferred": policy.encode(stored.best).x,
        "fixed unpreferred": policy.encode(stored.worst).x,
    }
    return motions, drawn.rewards


@pytest.mark.parametrize("method", PREFERENCE)
def test_each_method_compares_the_motions_of_its_row(method: str, store: PairStore) -> None:
    task = make_task(method, store)
    task.step(make_batch(), 0, rng())
    motions, _ = drawn_by_hand(task, store)
    assert len(task.policy.calls) == len(TABLE[method])
    for call, (preferred, unpreferred, *_) in zip(task.policy.calls, TABLE[method], strict=True):
        winner, loser = call["motion"].chunk(2)
        for found, word, side in (
            (winner, preferred, "preferred"),
            (loser, unpreferred, "unpreferred"),
        ):
            expected = motions[f"fixed {side}" if word == "fixed" else word]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def error_differences(task: PreferenceTask, call: dict) -> tuple[Tensor, Tensor]:
    """Policy minus reference ``[4]`` of winners and losers, for the inputs of one call."""
    samples = Samples(call["motion"], call["lengths"])
    inputs = (samples, call["t"], call["noise"], call["condition"])
    with torch.no_grad():
        difference = task.policy.error(*inputs) - task.algorithm.reference.error(*inputs)
    return difference.chunk(2)


@pytest.mark.parametrize("method", DPO)
def test_dpo_methods_minimise_the_diffusion_dpo_loss(method: str, store: PairStore) -> None:
    """-log sigmoid(-T beta (L_w - L_l)), written out; summed over the kinds of pair."""
    task = make_task(method, store)
    found = task.step(make_batch(), 0, rng()).loss
    expected = 0.0
    for call in list(task.policy.calls):
        winner, loser = error_differences(task, call)
        expected += -F.logsigmoid(-8 * BETA * (winner - loser)).mean().item()
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["sopo", "usopo", "sopo_wo_vu"])
def test_gate_and_weight_of_semi_online_methods(method: str, store: PairStore) -> None:
    task = make_task(method, store)
    _, rewards = drawn_by_hand(task, store)
    worst = rewards.amin(dim=1)
    task.algorithm.threshold.tau = float(worst.median())
    found = task.step(make_batch(), 0, rng())
    winner, loser = error_differences(task, task.policy.calls[0])
    ((_, _, gate, weighted),) = TABLE[method]
    opened = {"below_tau": worst < task.algorithm.threshold.tau, "never": worst < -1}[gate]
    assert gate == "never" or 0 < opened.sum() < 4
    beta_w = torch.full((4,), BETA)
    if weighted:
        condition = task.policy.encode_text(CAPTIONS)
        pairs = task.algorithm.sources[0](make_winners(), KEYS, condition, redrawn())
        beta_w = BETA * (C - pairs.similarity)
    z = -8 * (beta_w * winner - opened * BETA * loser)
    assert found.loss.item() == pytest.approx(-F.logsigmoid(z).mean().item(), rel=1e-4)
    assert float(found.metrics["gate/share_below_tau"]) == opened.float().mean()
    assert ("gate/tau" in found.metrics) == (gate == "below_tau")


def redrawn() -> torch.Generator:
    """A step's generator after it has drawn t."""
    generator = rng()
    torch.randint(8, (4,), generator=generator)
    return generator


def test_combined_is_the_sum_of_offline_and_online(store: PairStore) -> None:
    """The kinds share t; the noise is the online one's, so the offline loss is taken there."""
    combined = make_task("combined_dpo", store)
    total = combined.step(make_batch(), 0, rng())
    online = make_task("online_dpo", store).step(make_batch(), 0, rng())
    call = combined.policy.calls[0]
    task = make_task("offline_dpo", store)
    pairs = task.algorithm.sources[0](make_winners(), KEYS, call["condition"][:4], None)
    offline, _ = task.algorithm.pair_loss(pairs, call["t"][:4], call["noise"][:4])
    expected = online.loss.item() + offline.loss.mean().item()
    assert total.loss.item() == pytest.approx(expected, rel=1e-5)
    kinds = {name.split("/")[0] for name in total.metrics}
    assert kinds == {"dataset_fixed", "best_worst"}


def test_methods_without_online_pairs_generate_nothing(store: PairStore) -> None:
    for method in ("offline_dpo", "modipo_t", "sft"):
        task = make_task(method, store)
        task.algorithm.candidates = None
        task.step(make_batch(), 0, rng()).loss.backward()
        assert any(p.grad.abs().max() > 0 for p in task.module.parameters() if p.grad is not None)


def test_only_gated_methods_are_probed(store: PairStore) -> None:
    gated = {method for method in TABLE if make_task(method, store).gated}
    assert gated == {"sopo", "usopo"}


def test_pairs_ranked_by_another_reward_are_refused(tmp_path) -> None:
    folder = write_pairs(tmp_path, reward="evaluator")
    for method, accepted in (("modipo_g", True), ("offline_dpo", True), ("modipo_t", False)):
        options = Options(method=method, pairs_path=str(folder))
        if accepted:
            assert len(open_pairs(options).rows) == 4
        else:
            with pytest.raises(UserError, match="needs pairs ranked by --reward tmr"):
                open_pairs(options)
