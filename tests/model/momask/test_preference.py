"""Algorithm 1 on tokens: the error of a motion at a shared mask, and the margin that it makes."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_loaders.skeleton import KIT
from model.momask.generator import MoMaskGenerator
from model.momask.likelihood import count_probability, masked_error
from model.seam import Samples
from tests.model.momask.tiny import CAPTIONS, CODES, FRAMES, LAYERS, Seen, raw_motions, seeded
from tests.model.tiny import random_motion, tiny_generator
from tests.train.fakes import FirstFeature
from train.preference.algorithm import PreferenceAlgorithm
from train.preference.fixed_pairs import PairIndex, PairKey, PairStore, shard_path, write_shard
from train.preference.methods import METHODS
from train.preference.options import PreferenceOptions
from train.preference.pairs import CandidateSampler, Key
from train.token_preference import check_token_pairs, with_token_options
from utils.errors import UserError

KEYS = [Key(str(row), caption) for row, caption in enumerate(CAPTIONS)]
ONLINE = [name for name, pairs in METHODS.items() if all(pair.online for pair in pairs)]


def by_hand(generator: MoMaskGenerator, samples: Samples, t: Tensor, noise: Tensor) -> Tensor:
    """N l(a; M) of every row, one mask each, straight from the definition."""
    condition, found = generator.encode_text(CAPTIONS), []
    for row, length in enumerate(samples.frames.tolist()):
        count = length // 4
        u = 1 - (t[row] + noise[row, 0, 0]) / generator.levels
        hidden = max(1, round(count * math.cos(math.pi * float(u) / 2)))
        order = noise[row, 0, 1 : 1 + count].argsort()
        seen = samples.x[row : row + 1, :count, 0].clone()
        seen[0, order[:hidden]] = generator.model.mask_id
        valid = torch.ones(1, count, dtype=torch.bool)
        logits = generator.model(seen, condition.tokens[row, :1], valid)[0].log_softmax(-1)
        surprise = -logits[order[:hidden], samples.x[row, order[:hidden], 0]]
        found.append(count * surprise.mean())
    return torch.stack(found)


@torch.no_grad()
def test_levels_times_the_error_is_the_weighted_surprise_of_hidden_tokens(generator) -> None:
    samples, condition = generator.encode(raw_motions()), generator.encode_text(CAPTIONS)
    for level in (0, 20, 48):
        t, noise = torch.full((3,), level), generator.noise(samples, seeded(level))
        found = generator.levels * generator.error(samples, t, noise, condition)
        torch.testing.assert_close(found, by_hand(generator, samples, t, noise))


@torch.no_grad()
def test_winner_and_loser_share_the_mask(generator) -> None:
    winners, condition = generator.encode(raw_motions()), generator.encode_text(CAPTIONS)
    losers = generator.sample(condition, winners, seeded())
    t, noise = torch.tensor([10, 30, 48]), generator.noise(winners, seeded())
    seen = Seen(generator)
    generator.error(
        Samples.cat([winners, losers]), t.repeat(2), torch.cat([noise] * 2), condition.repeat(2)
    )
    (ids,) = seen.ids
    winner, loser = (part == generator.model.mask_id for part in ids.chunk(2))
    assert torch.equal(winner, loser)
    assert (winner.sum(1) >= 1).all()
    valid = generator.parts.tokens.valid(FRAMES, 10)  # what is padding in every row is left out
    assert not (winner & ~valid).any()
    assert (ids.chunk(2)[0][~valid] == generator.model.pad_id).all()
    kept = valid & ~winner
    assert torch.equal(ids.chunk(2)[0][kept], winners.x[:, :10, 0][kept])
    assert torch.equal(ids.chunk(2)[1][kept], losers.x[:, :10, 0][kept])


def test_times_are_uniform_and_several_of_a_row_are_spread(generator) -> None:
    many = replace(generator, mask_samples=4)
    t = torch.arange(49).repeat(200)
    noise = torch.rand(len(t), 4, 11, generator=seeded())
    u = many.mask_times(t, noise)
    assert ((u > 0) & (u <= 1)).all()
    for column in u.T:
        quantiles = column.sort().values
        expected = (torch.arange(len(t)) + 0.5) / len(t)
        torch.testing.assert_close(quantiles, expected, rtol=0, atol=0.01)
    gaps = u.sort(dim=1).values.diff(dim=1)
    assert (gaps - 0.25).abs().max() <= 1 / 49
    # a higher level hides more
    assert (many.mask_times(torch.arange(49), noise[:49])[:, 0].diff() < 2 / 49).all()
    assert many.mask_times(torch.tensor([0, 48]), noise[:2])[:, 0].diff() < -0.9


@torch.no_grad()
def test_the_exact_weight_estimates_the_bound_of_all_masks(generator) -> None:
    """N times the mean over sizes of the mean over masks, against a mean over drawn masks."""
    ids = torch.tensor([[3, 7, 1, 3, 0]])
    masks = torch.tensor([m for m in product([False, True], repeat=5) if any(m)])
    text = generator.encode_text(CAPTIONS[:1])
    every = masked_error(
        generator.model,
        ids.expand(31, -1),
        masks,
        text.tokens[:, 0].expand(31, -1),
        torch.ones_like(masks),
    )
    sizes = torch.arange(1, 6)
    errors = 5 * torch.stack([every[masks.sum(1) == m].mean() for m in sizes])
    drawn = count_probability(sizes, torch.tensor(5)).float()
    expected = {"elbo": errors.mean(), "constant": (drawn * errors).sum()}
    rows = 4900
    samples = Samples(ids.unsqueeze(-1).expand(rows, -1, LAYERS), torch.full((rows,), 20))
    t = torch.arange(49).repeat(rows // 49)
    for weighting, mean in expected.items():
        weighted = replace(generator, weighting=weighting)
        noise = weighted.noise(samples, seeded())
        found = 49 * weighted.error(samples, t, noise, text.repeat(rows)).mean()
        torch.testing.assert_close(found, mean, rtol=0.005, atol=0)
    difference = (expected["elbo"] - expected["constant"]).abs() / expected["elbo"]
    assert difference > 0.01, "the weight makes no difference here: a blunt test"


@torch.no_grad()
def test_several_masks_are_averaged(generator) -> None:
    samples, condition = generator.encode(raw_motions()), generator.encode_text(CAPTIONS)
    many, t = replace(generator, mask_samples=3), torch.tensor([5, 25, 45])
    noise = many.noise(samples, seeded())
    times = many.mask_times(t, noise)
    single = []
    for i in range(3):
        place = (1 - times[:, i]) * 49
        level = place.floor().clamp(max=48)
        part = noise[:, i : i + 1].clone()
        part[:, 0, 0] = place - level
        single.append(generator.error(samples, level.long(), part, condition))
    found = many.error(samples, t, noise, condition)
    torch.testing.assert_close(found, torch.stack(single).mean(0), rtol=1e-4, atol=1e-5)


def algorithm_of(generator: MoMaskGenerator, **options) -> PreferenceAlgorithm:
    given = PreferenceOptions(**({"num_candidates": 2, "tau": 1.0} | options))
    return PreferenceAlgorithm(given, generator, FirstFeature())


@pytest.mark.parametrize("method", ONLINE)
def test_every_online_method_tunes_the_base_transformer_alone(generator, method: str) -> None:
    algorithm = algorithm_of(generator, method=method)
    outcome = algorithm.step(raw_motions(), KEYS, seeded())
    outcome.loss.mean().backward()
    assert outcome.loss.isfinite().all()
    assert any(p.grad is not None and p.grad.any() for p in generator.model.parameters())
    networks = (generator.parts.tokens.rvq, generator.parts.residual, algorithm.reference.model)
    assert all(p.grad is None for network in networks for p in network.parameters())


def write_pairs(folder: Path, generator: MoMaskGenerator, **changes) -> PairStore:
    """A pair for every motion, one token longer than its crop, as the generator draws it."""
    keys = [
        PairKey(key.clip, key.caption, length + 4)
        for key, length in zip(KEYS, FRAMES.tolist(), strict=True)
    ]
    options = {"batch_size": 2, "num_candidates": 2, "reward": ["tmr"]}
    index = PairIndex("tiny", KIT.feature_dim, options, keys)
    index.write(folder)
    draw = CandidateSampler(generator, FirstFeature(), 2)
    for number, rows in enumerate((slice(0, 2), slice(2, 3))):
        raw = Samples(random_motion(3, 44, KIT.feature_dim), FRAMES + 4)
        condition = generator.encode_text(CAPTIONS)
        drawn = draw(generator.encode(raw[rows]), CAPTIONS[rows], condition[rows], seeded(number))
        write_shard(shard_path(folder, number), drawn)
    return PairStore(folder)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ONLINE])
def test_fixed_pairs_keep_the_ids_that_were_drawn(generator, tmp_path, method: str) -> None:
    store = write_pairs(tmp_path, generator)
    given = PreferenceOptions(method=method, num_candidates=2)
    algorithm = PreferenceAlgorithm(given, generator, FirstFeature(), store)
    watch = Pairs(algorithm)
    outcome = algorithm.step(raw_motions(), KEYS, seeded())
    outcome.loss.mean().backward()
    assert any(p.grad is not None and p.grad.any() for p in generator.model.parameters())
    fixed = watch.seen[0][0]
    for row, length in enumerate(FRAMES.tolist()):
        worst = store.ids[row, 1, : length // 4].long()
        assert torch.equal(fixed.unpreferred.x[row, : length // 4], worst)
        assert (fixed.unpreferred.x[row, length // 4 :] == -1).all()
    encoded_again = generator.encode(store.lookup(KEYS, raw_motions()).worst).x
    assert not torch.equal(encoded_again, fixed.unpreferred.x), "a blunt test"


def test_ids_that_the_model_lacks_are_refused(generator, tmp_path) -> None:
    write_pairs(tmp_path, generator)
    path = shard_path(tmp_path, 1)
    content = load_file(path)
    content["worst_ids"][0, 0, 1] = CODES
    save_file(content, path)
    with pytest.raises(UserError, match=r"ids from -1 to 12 of 3 layers, the model has 3 layers "):
        check_token_pairs(generator, PairStore(tmp_path))
    del content["worst_ids"]
    save_file(content, path)
    with pytest.raises(UserError, match="ids of tokens for 2 of 3 pairs"):
        check_token_pairs(generator, PairStore(tmp_path))
    for number in (0, 1):
        content = load_file(shard_path(tmp_path, number))
        kept = {k: v for k, v in content.items() if not k.endswith("_ids")}
        save_file(kept, shard_path(tmp_path, number))
    with pytest.raises(UserError, match="hold no ids of tokens"):
        check_token_pairs(generator, PairStore(tmp_path))


def test_options_of_tokens_reach_the_error(generator) -> None:
    found = with_token_options(generator, PreferenceOptions(mask_samples=2, omega="elbo"))
    assert (found.mask_samples, found.weighting) == (2, "elbo")
    found = with_token_options(generator, PreferenceOptions())
    assert (found.mask_samples, found.weighting) == (4, "constant")
    for omega in ("elbo", "relative"):
        tuned = with_token_options(generator, PreferenceOptions(omega=omega))
        outcome = algorithm_of(tuned, omega=omega).step(raw_motions(), KEYS, seeded())
        assert outcome.loss.isfinite().all()


REFUSED = {
    "omega": ({"omega": "snr"}, "--omega snr: hidden tokens have no signal-to-noise"),
    "space": ({"similarity_space": "features"}, "--similarity_space features: the ids"),
    "levels": ({"loser_min_t": 0.5}, "--loser_min_t: the masks of one pair"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_without_a_counterpart_are_refused(generator, name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        with_token_options(generator, PreferenceOptions(**changes))


def test_options_of_tokens_are_refused_for_diffusion() -> None:
    diffusion = tiny_generator(KIT)
    with pytest.raises(UserError, match="--mask_samples: this model is no model of tokens"):
        with_token_options(diffusion, PreferenceOptions(mask_samples=1))
    with pytest.raises(UserError, match="--omega elbo weighs the number of hidden tokens"):
        with_token_options(diffusion, PreferenceOptions(omega="elbo"))
    assert with_token_options(diffusion, PreferenceOptions(omega="snr")) is diffusion


def test_an_untuned_policy_has_margin_0_and_loss_log_2(generator) -> None:
    outcome = algorithm_of(generator).step(raw_motions(), KEYS, seeded())
    assert torch.equal(outcome.margin, torch.zeros(3))
    torch.testing.assert_close(outcome.loss, torch.full((3,), math.log(2)))


class Pairs:
    """The pairs, levels and noise of an algorithm's steps."""

    def __init__(self, algorithm: PreferenceAlgorithm) -> None:
        self.seen: list[tuple] = []
        errors = algorithm.errors
        algorithm.errors = lambda *drawn: self.seen.append(drawn) or errors(*drawn)


def test_the_margin_is_that_of_the_definition(generator) -> None:
    """z = -N (beta_w D_winner - beta D_loser)."""
    algorithm = algorithm_of(generator)
    watch = Pairs(algorithm)
    with torch.no_grad():
        generator.model.output_process.poseFinal.bias.add_(random_motion(CODES))
    outcome = algorithm.step(raw_motions(), KEYS, seeded())
    ((pairs, t, noise),) = watch.seen
    with torch.no_grad():
        winner, loser = (
            by_hand(generator, samples, t, noise) - by_hand(algorithm.reference, samples, t, noise)
            for samples in (pairs.preferred, pairs.unpreferred)
        )
    expected = -((2.0 - pairs.similarity) * winner - loser)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(outcome.margin, expected, rtol=1e-3, atol=1e-4)


def test_a_closed_gate_leaves_the_loser_without_gradient(generator) -> None:
    gradients = []
    for options in ({"tau": 0.0}, {"method": "sopo_wo_vu"}):
        generator.model.zero_grad()
        outcome = algorithm_of(generator, **options).step(raw_motions(), KEYS, seeded())
        outcome.loss.mean().backward()
        gradients.append(
            [p.grad.clone() for p in generator.model.parameters() if p.grad is not None]
        )
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_losers_are_the_ids_as_sampled(generator) -> None:
    """Nothing but the dataset's motions is ever encoded."""
    encoded, sampled = [], []

    class Watched(MoMaskGenerator):
        def encode(self, raw, rng=None):
            encoded.append(raw)
            return super().encode(raw, rng)

        def sample(self, *args):
            sampled.append(super().sample(*args))
            return sampled[-1]

    algorithm = algorithm_of(Watched(**vars(generator)))
    watch = Pairs(algorithm)
    algorithm.step(raw_motions(), KEYS, seeded())
    assert len(encoded) == 1
    (candidates,) = sampled
    for ids in watch.seen[0][0].unpreferred.x:
        assert any(torch.equal(ids, candidate) for candidate in candidates.x)


def test_a_few_steps_lower_the_loss(generator) -> None:
    algorithm = algorithm_of(generator)
    optimizer = torch.optim.Adam(generator.model.parameters(), 2e-3)
    losses = []
    for _ in range(6):
        outcome = algorithm.step(raw_motions(), KEYS, seeded())
        optimizer.zero_grad()
        outcome.loss.mean().backward()
        optimizer.step()
        losses.append(outcome.loss.mean().item())
    assert min(losses[-3:]) < 0.9 * losses[0]
