"""MoMask's RVQ-VAE and steps of its codebooks against upstream's numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.momask.draws import Draws
from model.momask.rvq import RVQVAE, RVQConfig, rvq_losses
from tests.golden.base import Golden, Row, covers


class Recorded(Draws):
    """Replays recorded numbers, one array per draw; without any, all uniform numbers are equal."""

    def __init__(self, *arrays: Tensor) -> None:
        super().__init__()
        self.arrays = list(arrays)

    def uniform(self, *shape: int) -> Tensor:
        return self._next(shape) if self.arrays else torch.full(shape, 0.5)

    def exponential(self, *shape: int) -> Tensor:
        return self._next(shape)

    def _next(self, shape: tuple[int, ...]) -> Tensor:
        array = self.arrays.pop(0)
        assert array.shape == shape, f"recorded {tuple(array.shape)}, drawn {shape}"
        return array


def scaled(g: Golden, key: str, actual: Tensor, tolerance: float) -> Row:
    """Within `tolerance` of the largest recorded value, or absolute where that is below 1."""
    largest = float(np.abs(g[key][np.isfinite(g[key])]).max(initial=0.0))
    return g.close(key, actual, g[key], atol=tolerance * max(1.0, largest))


def rvq_of(g: Golden, prefix: str) -> RVQVAE:
    names = {*RVQConfig.__dataclass_fields__} & {
        k.rsplit("/", 1)[1] for k in g.keys(f"{prefix}cfg/")
    }
    config = RVQConfig(
        **{name: g.scalar(f"{prefix}cfg/{name}") for name in names},
        dropout=0.0,
        quantize_dropout_prob=0.0,
    )
    model = RVQVAE(config, g.scalar(f"{prefix}cfg/nfeats"))
    model.load_state_dict(g.state_dict(f"{prefix}sd/"))
    return model.eval()


def losses_of(g: Golden, prefix: str, model: RVQVAE, x: Tensor, *draws: Draws) -> Any:
    positions = slice(4, 4 + 3 * (g.scalar(f"{prefix}cfg/joints") - 1))
    weights = (g.scalar(f"{prefix}cfg/loss_vel"), g.scalar(f"{prefix}cfg/commit"))
    output = model(x, *draws)
    return output, rvq_losses(output, x, positions, *weights)


@covers("momask_rvq*.npz")
def rvq(g: Golden) -> Iterator[Row]:
    for prefix in sorted({key.split("/")[0] + "/" for key in g.keys("")}):
        model = rvq_of(g, prefix)
        with torch.no_grad():
            yield from rvq_passes(g, prefix, model)
        yield from straight_through(g, prefix, model)
        yield from rvq_training(g, prefix, model)


def rvq_passes(g: Golden, prefix: str, model: RVQVAE) -> Iterator[Row]:
    x, ids = g.tensor(f"{prefix}x"), g.tensor(f"{prefix}encode/code_idx")
    codes = model.quantizer.codes(ids)
    yield scaled(g, f"{prefix}encoder_out", model.encode_features(x), 2e-5)
    yield g.equal(f"{prefix}encode/code_idx", model.encode(x), ids)
    yield scaled(g, f"{prefix}encode/codes", codes.transpose(2, 3), 2e-5)
    row = g.scalar(f"{prefix}encode_unpadded/row")
    alone = x[row : row + 1, : g[f"{prefix}lengths"][row]]
    key = f"{prefix}encode_unpadded/code_idx"
    yield g.equal(key, model.encode(alone), g[key])
    padded = g.tensor(f"{prefix}decode/ids_padded")
    decoded = {"from_codes": ids, "out_padded": padded, "out_base_only": ids[..., :1]}
    for name, chosen in decoded.items():
        yield scaled(g, f"{prefix}decode/{name}", model.decode(chosen), 2e-5)
    output, losses = losses_of(g, prefix, model, x)
    yield scaled(g, f"{prefix}forward/out", output.motion, 2e-5)
    yield scaled(g, f"{prefix}forward/commit_loss", losses.commitment, 2e-5)
    yield scaled(g, f"{prefix}forward/perplexity", output.quantised.perplexity, 2e-5)
    yield scaled(g, f"{prefix}loss/recons", losses.recons, 2e-5)
    yield scaled(g, f"{prefix}loss/explicit", losses.positions, 2e-5)
    yield scaled(g, f"{prefix}loss/total", losses.total, 2e-5)
    dropped = model.quantizer(g.tensor(f"{prefix}encoder_out"), used_layers=2)
    yield scaled(g, f"{prefix}drop_after_1/quantized", dropped.quantised, 2e-5)
    key = f"{prefix}drop_after_1/code_idx"
    yield g.equal(key, dropped.ids, g[key])
    yield scaled(g, f"{prefix}drop_after_1/commit_loss", dropped.commitment, 2e-5)
    yield scaled(g, f"{prefix}drop_after_1/perplexity", dropped.perplexity, 2e-5)


def straight_through(g: Golden, prefix: str, model: RVQVAE) -> Iterator[Row]:
    features = g.tensor(f"{prefix}encoder_out").requires_grad_()
    (g.tensor(f"{prefix}ste/weight") * model.quantizer(features).quantised).sum().backward()
    assert features.grad is not None
    yield scaled(g, f"{prefix}ste/grad_encoder_out", features.grad, 1e-4)


def rvq_training(g: Golden, prefix: str, model: RVQVAE) -> Iterator[Row]:
    """Steps of the codebooks alone, from none at all; then the same broken off and resumed."""
    batches = g.tensor(f"{prefix}train/x")
    noise = [g.tensor(f"{prefix}train/step{i}/gumbel_uniform") for i in range(len(batches))]
    for layer in model.quantizer.layers:
        layer.codebook.zero_()
    model.train()
    state: dict[str, Tensor] = {}
    averages: dict[str, Tensor] = {}
    for i, x in enumerate(batches):
        if i == len(batches) - 1:
            state = {key: value.clone() for key, value in model.state_dict().items()}
            averages = model.quantizer.averages()
        yield from rvq_step(g, f"{prefix}train/step{i}/", prefix, model, x, Recorded(*noise[i]))
    resumed = rvq_of(g, prefix).train()
    resumed.load_state_dict(state)
    resumed.quantizer.load_averages(averages)
    resumed(batches[-1], Recorded(*noise[-1]))
    for name in ("codebook", "code_sum", "code_count"):
        found, expected = (
            torch.stack([getattr(layer, name) for layer in m.quantizer.layers])
            for m in (resumed, model)
        )
        yield g.equal(f"{prefix}train: {name} of a resumed training", found, expected)


def rvq_step(
    g: Golden, key: str, prefix: str, model: RVQVAE, x: Tensor, draws: Draws
) -> Iterator[Row]:
    model.zero_grad()
    output, losses = losses_of(g, prefix, model, x, draws)
    yield scaled(g, f"{key}commit_loss", losses.commitment, 2e-5)
    yield scaled(g, f"{key}perplexity", output.quantised.perplexity, 2e-5)
    yield scaled(g, f"{key}loss", losses.total, 2e-5)
    losses.total.backward()
    named = dict(model.named_parameters())
    for gradient in g.keys(f"{key}grad/"):
        found = named[gradient.split("/grad/")[1]].grad
        assert found is not None
        yield scaled(g, gradient, found, 1e-4)
    names = {"codebooks": "codebook", "code_count": "code_count", "code_sum": "code_sum"}
    for name, attribute in names.items():
        found = torch.stack([getattr(layer, attribute) for layer in model.quantizer.layers])
        yield scaled(g, f"{key}{name}_after", found, 1e-4)
