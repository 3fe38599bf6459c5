"""Every fast path against the plain computation that it replaces."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils._python_dispatch import TorchDispatchMode

from data_loaders.skeleton import KIT
from diffusion.gaussian import GaussianDiffusion
from diffusion.samplers import noise_from
from diffusion.sampling import SAMPLERS, SamplerOptions
from diffusion.schedule import make_schedule
from model.batching import balanced_groups, split_by_length
from model.layers import _two_products, attention_bias, decoder_layer, encoder_layer
from model.mdm import batching
from model.mdm import generator as generators
from model.mdm.batching import grouped_denoiser, guided_denoiser
from model.mdm.generator import MDMGenerator
from model.seam import Samples
from model.text.encoders import Condition
from tests.model.tiny import FEATURES, random_condition, random_motion, tiny_generator, tiny_mdm
from utils.masks import length_mask

WIDTH, HEADS = 16, 2
SPILL = 4
LENGTHS = torch.tensor([12, 40, 8, 24, 40, 16])
CAPTIONS = [f"a person walks {word}" for word in ("on", "back", "left", "right", "up", "down")]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Products by as many threads as a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def hidden_positions(*lengths: int) -> Tensor:
    return ~length_mask(torch.tensor(lengths), max(lengths))


def layer_of(kind: type, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    layer = kind(WIDTH, HEADS, 32, dropout, activation="gelu", batch_first=True)
    for parameter in layer.parameters():  # biases and norms start at 0 and 1, which hides mistakes
        nn.init.normal_(parameter, std=0.3)
    return layer.train()  # in eval mode and without gradient PyTorch takes another shortcut


KINDS = [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer]


def run_both(
    layer: nn.Module, x: Tensor, memory: Tensor, hidden: Tensor | None, memory_hidden: Tensor | None
) -> tuple[Tensor, Tensor]:
    """By our function and by PyTorch's layer."""
    bias, memory_bias = (attention_bias(h, x.dtype) for h in (hidden, memory_hidden))
    if isinstance(layer, nn.TransformerEncoderLayer):
        return encoder_layer(layer, x, bias), layer(x, src_key_padding_mask=hidden)
    theirs = layer(x, memory, tgt_key_padding_mask=hidden, memory_key_padding_mask=memory_hidden)
    return decoder_layer(layer, x, memory, bias, memory_bias), theirs


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_and_their_gradients_are_those_of_pytorch(kind: type, masked: bool) -> None:
    layer, x = layer_of(kind), random_motion(2, 7, WIDTH).requires_grad_()
    masks = (hidden_positions(7, 4), hidden_positions(2, 5)) if masked else (None, None)
    ours, theirs = run_both(layer, x, random_motion(2, 5, WIDTH, seed=4), *masks)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_where_it_does_in_pytorch(kind: type) -> None:
    """The draws differ, so mean and deviation over many of them are compared."""
    torch.manual_seed(0)
    layer = layer_of(kind, dropout=0.4)
    x, memory = random_motion(1, 3, WIDTH), random_motion(1, 4, WIDTH, seed=4)
    many = 20_000
    with torch.no_grad():
        ours, theirs = run_both(
            layer, x.expand(many, -1, -1), memory.expand(many, -1, -1), None, None
        )
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.05, atol=0.01)


@pytest.mark.parametrize("masked", [False, True])
def test_two_products_are_attention(masked: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, HEADS, n, 8, generator=rng) for n in (7, 5, 5))
    bias = attention_bias(hidden_positions(2, 5), torch.float32) if masked else None
    exact = F.scaled_dot_product_attention(query, key, value, bias)
    found = _two_products(query, key, value, bias, 0.0)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)
    half = [tensor.bfloat16() for tensor in (query, key, value)]
    reduced = _two_products(*half, bias if bias is None else bias.bfloat16(), 0.0)
    assert (reduced.float() - exact).abs().max() < 0.02


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("budget", [1, 50, 100, 10_000])
def test_calls_hold_every_row_once_within_the_budget(trim: bool, budget: int) -> None:
    lengths = LENGTHS.tolist()
    groups = split_by_length(lengths, 40, trim, budget, SPILL)
    assert sorted(row for rows, _ in groups for row in rows) == list(range(len(lengths)))
    for rows, frames in groups:
        assert len(rows) == 1 or len(rows) * frames <= budget
        assert frames >= min(40, max(lengths[row] for row in rows) + SPILL)
        assert trim or frames == 40
    if budget == 100:
        computed = sum(len(rows) * frames for rows, frames in groups)
        assert computed < (200 if trim else 241)


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("rows", [21, 41, 64, 65])
def test_equal_motions_are_shared_equally(rows: int, threads: int) -> None:
    """A call holds 10 of them at most; a leftover costs no further round."""
    rounds = math.ceil(rows / 10 / threads)
    groups = balanced_groups([36] * rows, 40, True, 400, threads, SPILL)
    assert len(groups) <= rounds * threads
    assert max(len(numbers) for numbers, _ in groups) == math.ceil(rows / (rounds * threads))


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("budget", [1, 100, 500])
def test_threads_share_the_frames_of_unequal_motions(trim: bool, budget: int) -> None:
    lengths = torch.randint(8, 41, (70,), generator=torch.Generator().manual_seed(0)).tolist()
    groups = balanced_groups(lengths, 44, trim, budget, 4)
    assert sorted(row for rows, _ in groups for row in rows) == list(range(70))
    assert all(len(rows) == 1 or len(rows) * frames <= budget for rows, frames in groups)
    rounds = math.ceil(len(split_by_length(lengths, 44, trim, budget)) / 4)
    computed = [len(rows) * frames for rows, frames in groups]
    assert len(computed) <= 4 * rounds
    assert max(computed) <= sum(computed) / (4 * rounds) + 44  # the mean and one motion


def test_one_call_stays_one_and_one_thread_needs_no_balance() -> None:
    lengths = LENGTHS.tolist()
    assert len(balanced_groups(lengths, 40, True, 1000, 4)) == 1
    assert balanced_groups(lengths, 40, True, 50, 1) == split_by_length(lengths, 40, True, 50)


def unequal_batch(threads: int) -> Tensor:
    """x0 ``[24, 40, D]`` of one guided call in bfloat16, in several groups."""
    network = tiny_mdm(arch="trans_dec")
    condition, x = random_condition([3, 5, 2, 4] * 6), random_motion(24, 40, FEATURES)
    denoise = grouped_denoiser(network, condition, LENGTHS.repeat(4), 40, 2.5, 400, threads)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return denoise(x, torch.arange(24) % 8)


def test_threads_change_no_bit(monkeypatch, one_thread) -> None:
    side_by_side = unequal_batch(threads=3)
    monkeypatch.setattr(batching, "run_side_by_side", lambda calls, _: [c() for c in calls])
    assert torch.equal(side_by_side, unequal_batch(threads=3))


def test_gradients_pass_through_groups_whatever_the_threads() -> None:
    network, mask = tiny_mdm(), length_mask(LENGTHS, 40)
    condition, t = random_condition([1] * 6), torch.tensor([1, 6, 3, 2, 7, 0])
    grouped = grouped_denoiser(network, condition, LENGTHS, 40, 2.5, 100, threads=3)
    gradients = []
    for denoise in (grouped, guided_denoiser(network, condition, mask, 2.5)):
        x = random_motion(6, 40, FEATURES).requires_grad_()
        valid = denoise(x, t) * mask.unsqueeze(-1)
        gradients.append(torch.autograd.grad(valid.square().sum(), x)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def sample(changes: dict, budget: int, monkeypatch) -> Tensor:
    monkeypatch.setitem(generators.FRAMES_PER_CALL, "cpu", budget)
    generator = replace(tiny_generator(KIT, **changes), spill=SPILL)
    rng = torch.Generator().manual_seed(3)
    return generator.draw(generator.encode_text(CAPTIONS), LENGTHS, rng)


@pytest.mark.parametrize("arch", ["trans_enc", "trans_dec", "gru"])
@pytest.mark.parametrize("mask_frames", [False, True])
def test_splitting_a_batch_changes_no_frame_that_is_read(arch, mask_frames, monkeypatch) -> None:
    changes = {"arch": arch, "mask_frames": mask_frames}
    whole = sample(changes, 1_000_000, monkeypatch)
    split = sample(changes, 120, monkeypatch)
    read = length_mask(LENGTHS + SPILL, whole.shape[1])
    torch.testing.assert_close(split[read], whole[read], rtol=1e-4, atol=1e-5)


def test_reduced_precision_and_grouping_choose_the_same_worst_candidate(monkeypatch) -> None:
    """The reward is a random direction, so that only the order of the candidates is tested."""
    monkeypatch.setitem(generators.FRAMES_PER_CALL, "cpu", 300)
    generator = tiny_generator(KIT, arch="trans_dec")
    captions = [f"{caption} {number}" for caption in CAPTIONS for number in range(8)]
    lengths = LENGTHS.repeat_interleave(8)
    condition = generator.encode_text(captions).repeat_interleave(4)
    direction = random_motion(KIT.feature_dim, seed=6)

    def worst() -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(3)
        motions = generator.draw(condition, lengths.repeat_interleave(4), rng)
        valid = length_mask(lengths.repeat_interleave(4), motions.shape[1]).unsqueeze(-1)
        return motions * valid, (motions * valid).sum(1).mv(direction).view(-1, 4).argmin(1)

    exact, choice = worst()
    generator.autocast = torch.bfloat16
    reduced, found = worst()
    assert (reduced - exact).abs().mean() < 0.01
    assert (found == choice).float().mean() >= 0.9


@pytest.mark.parametrize("threads", [1, 3])
def test_rollouts_leave_the_gradient_of_the_same_autocast_alone(threads: int, monkeypatch) -> None:
    """Autocast remembers the weights that it has cast; those of a rollout carry no gradient."""
    monkeypatch.setattr(MDMGenerator, "_threads", lambda _: threads)
    monkeypatch.setitem(generators.FRAMES_PER_CALL, "cpu", 120)
    generator = tiny_generator(KIT)
    generator.autocast = torch.bfloat16
    condition = generator.encode_text(CAPTIONS)
    motion, t = random_motion(6, 40, KIT.feature_dim), torch.tensor([1, 6, 3, 2, 7, 0])
    gradients = []
    for rollout in (False, True):
        generator.model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            if rollout:
                generator.draw(condition, LENGTHS)
            error = generator.error(Samples(motion, LENGTHS), t, motion, condition).mean()
        error.backward()
        gradients.append([p.grad.clone() for p in generator.model.parameters()])
    for without, after in zip(*gradients, strict=True):
        assert torch.equal(without, after)


class DeviceCopies(TorchDispatchMode):
    """Counts copies between devices."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default and args[0].device != result.device:
            self.count += 1
        return result


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_sampling_loop_never_waits_for_the_device(name: str) -> None:
    """Tensors without values stand for a GPU's: reading one would raise an error."""
    network = tiny_mdm().to("meta")
    tokens = random_condition([1, 1])
    condition = Condition(tokens.tokens.to("meta"), tokens.mask.to("meta"))
    mask = torch.ones(2, 6, dtype=torch.bool, device="meta")
    x = torch.empty(2, 6, FEATURES, device="meta")
    denoise = guided_denoiser(network, condition, mask, 2.5)
    diffusion = GaussianDiffusion(make_schedule("cosine", 8))
    counts = []
    for _ in range(2):  # the first run places the tables
        with DeviceCopies() as copies:
            SamplerOptions(name).run(denoise, diffusion, x, noise_from(None, x))
        counts.append(copies.count)
    assert counts[0] < 20
    assert counts[1] == 0


def test_a_failing_compiler_is_told_once_and_done_without(monkeypatch) -> None:
    def broken(network: nn.Module):
        def call(*arguments):
            raise TorchDynamoException("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match="no compiler here") as told:
        motion = sample_compiled(True)
    assert len(told) == 1
    assert torch.equal(motion, sample_compiled(False))


def sample_compiled(compiled: bool) -> Tensor:
    generator = tiny_generator(KIT)
    generator.compiled = compiled
    rng = torch.Generator().manual_seed(0)
    return generator.draw(generator.encode_text(CAPTIONS), LENGTHS, rng)


@pytest.mark.slow
def test_the_compiled_network_samples_the_same_motion() -> None:
    torch.testing.assert_close(sample_compiled(True), sample_compiled(False), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mask_frames", [True, False])
def test_rollouts_that_need_too_much_memory_are_halved(mask_frames: bool, monkeypatch) -> None:
    """The same motions, and no further attempt at what has failed once."""
    generator = tiny_generator(KIT, mask_frames=mask_frames)
    condition = generator.encode_text([f"a person walks {n}" for n in range(7)])
    lengths = torch.tensor([40, 40, 60, 44, 80, 64, 48])

    def draw() -> torch.Tensor:
        return generator.draw(condition, lengths, torch.Generator().manual_seed(1))

    expected, sizes, forward = draw(), [], type(generator.model).forward

    def limited(self, x, *arguments):
        sizes.append(len(x))
        if len(x) > 4:  # two motions, with and without their text
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, x, *arguments)

    monkeypatch.setattr(type(generator.model), "forward", limited)
    torch.testing.assert_close(draw(), expected, rtol=1e-4, atol=1e-4)
    assert max(sizes) > 4
    steps = generator.levels
    assert sum(size > 4 for size in sizes) < 8, "at the first of the steps alone"
    assert sum(size <= 4 for size in sizes) >= 4 * steps


def test_other_errors_of_the_network_are_not_tried_again(monkeypatch) -> None:
    generator = tiny_generator(KIT)
    condition = generator.encode_text(["a person walks"] * 4)

    def broken(self, x, *arguments):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(type(generator.model), "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        generator.draw(condition, torch.tensor([40] * 4))
