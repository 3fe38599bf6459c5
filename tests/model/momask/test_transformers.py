"""Base and residual transformer: what may and what may not change their logits."""

import pytest
import torch

from model.momask.transformers import BaseTransformer, ResidualTransformer, guided_logits
from tests.model.momask.tiny import (
    CODES,
    LAYERS,
    TEXT_WIDTH,
    VOCABULARY,
    random_text,
    tiny_transformer,
    valid_tokens,
)

VALID = valid_tokens([5, 8])


def random_ids(*shape: int, seed: int = 6) -> torch.Tensor:
    return torch.randint(CODES, shape, generator=torch.Generator().manual_seed(seed))


def base_inputs() -> tuple[torch.Tensor, ...]:
    return random_ids(2, 8), random_text(2), VALID


def residual_inputs(model: ResidualTransformer) -> tuple[torch.Tensor, ...]:
    layer = torch.tensor([1, 2])
    return model.history(random_ids(2, 8, LAYERS), layer), layer, random_text(2), VALID


@pytest.mark.parametrize("kind", [BaseTransformer, ResidualTransformer])
@torch.no_grad()
def test_padding_never_changes_valid_logits(kind) -> None:
    model = tiny_transformer(kind)
    first, *rest = base_inputs() if kind is BaseTransformer else residual_inputs(model)
    expected = model(first, *rest)
    changed = first.clone()
    changed[0, 5:] = 3
    found = model(changed, *rest)
    torch.testing.assert_close(found[VALID], expected[VALID], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_every_valid_token_counts() -> None:
    model = tiny_transformer(BaseTransformer)
    ids, text, valid = base_inputs()
    expected = model(ids, text, valid)
    ids[1, 7] = (ids[1, 7] + 1) % CODES
    found = model(ids, text, valid)
    assert (found[1] - expected[1]).abs().amin(dim=-1).max() > 1e-4
    assert torch.equal(found[0], expected[0])


@torch.no_grad()
def test_a_hidden_caption_is_the_bias_alone() -> None:
    model = tiny_transformer(BaseTransformer)
    ids, text, valid = base_inputs()
    hidden = torch.tensor([True, False])
    found = model(ids, text, valid, hidden)
    text[0] = 0.0
    assert torch.equal(found, model(ids, text, valid))


@torch.no_grad()
def test_guidance_moves_away_from_the_unconditional_logits() -> None:
    model = tiny_transformer(BaseTransformer)
    inputs = base_inputs()
    conditional = model(*inputs)
    unconditional = model(*inputs, torch.ones(2, dtype=torch.bool))
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(guided_logits(model, *inputs, scale=1.0), conditional, **close)
    torch.testing.assert_close(guided_logits(model, *inputs, scale=0.0), unconditional, **close)
    expected = unconditional + 3 * (conditional - unconditional)
    torch.testing.assert_close(guided_logits(model, *inputs, scale=3.0), expected, **close)


@torch.no_grad()
def test_shared_tables_read_and_predict_a_layer_alike() -> None:
    model = tiny_transformer(ResidualTransformer)
    for layer in range(1, LAYERS - 1):
        assert torch.equal(model.output_tables[layer - 1], model.input_tables[layer])
    first, last = model.input_tables[0], model.output_tables[-1]
    assert not any(torch.equal(first, table) for table in model.output_tables)
    assert not any(torch.equal(last, table) for table in model.input_tables)


@pytest.mark.parametrize("share_weight", [True, False])
@torch.no_grad()
def test_the_history_is_the_sum_of_the_layers_below(share_weight: bool) -> None:
    model = tiny_transformer(ResidualTransformer, share_weight=share_weight)
    ids = random_ids(2, 8, LAYERS)
    found = model.history(ids, torch.tensor([1, 2]))
    tables = model.input_tables
    torch.testing.assert_close(found[0], tables[0][ids[0, :, 0]])
    torch.testing.assert_close(found[1], tables[0][ids[1, :, 0]] + tables[1][ids[1, :, 1]])


@torch.no_grad()
def test_the_residual_transformer_knows_its_layer() -> None:
    model = tiny_transformer(ResidualTransformer)
    history, _, text, valid = residual_inputs(model)
    one, two = (model(history, torch.tensor([j, j]), text, valid) for j in (1, 2))
    assert one.shape == (2, 8, CODES + 1)
    assert (one - two).abs().max() > 0.1


def test_starts_with_small_weights() -> None:
    model = BaseTransformer(tiny_transformer(BaseTransformer).config, VOCABULARY, TEXT_WIDTH)
    assert 0.01 < model.output_process.dense.weight.std() < 0.03
    assert 0.01 < model.token_emb.weight.std() < 0.03
    assert not model.cond_emb.bias.any()
    # attention's packed projections keep the wider range of PyTorch's own start
    assert model.seqTransEncoder.layers[0].self_attn.in_proj_weight.std() > 0.1
