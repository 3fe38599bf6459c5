"""The skip transformer: order of the skips, hidden positions, sizes."""

import pytest
import torch
from torch import nn

from model.latent.skip_transformer import (
    LearnedPositions,
    SkipDecoder,
    SkipEncoder,
    SkipTransformer,
    SkipTransformerConfig,
)
from tests.model.latent.tiny import TRUNK, draw
from utils.errors import UserError

CONFIG = SkipTransformerConfig(**TRUNK)


def test_skips_are_read_last_in_first_out_after_the_current_value() -> None:
    """Blocks that add 1, 2, 4, 8, 16, and linear layers that add skip times 100 to the current."""
    config = SkipTransformerConfig(hidden_dim=1, layers=5)
    steps = iter([1.0, 2.0, 4.0, 8.0, 16.0])
    network = SkipTransformer(nn.Identity, config)
    network.norm = nn.Identity()
    for linear in network.linear_blocks:
        linear.weight.data, linear.bias.data = torch.tensor([[1.0, 100.0]]), torch.zeros(1)
    found = network.run(lambda _, x: x + next(steps), torch.zeros(1, 1, 1))
    # 0 -> 1 -> 3 -> 7; + 300 + 8 = 315; + 100 + 16 = 431
    assert found.item() == 431


def test_hidden_positions_change_nothing() -> None:
    encoder = SkipEncoder(CONFIG).eval()
    x, hidden = draw(2, 7, 16), torch.zeros(2, 7, dtype=torch.bool)
    hidden[0, 5:] = True
    other = torch.where(hidden[..., None], 100.0, x)
    found, changed = encoder(x, hidden), encoder(other, hidden)
    torch.testing.assert_close(changed[~hidden], found[~hidden], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[0, :5], encoder(x[:1, :5])[0], rtol=0, atol=1e-5)
    assert (encoder(other)[0, :5] - found[0, :5]).abs().max() > 1e-3


def test_the_decoder_reads_its_memory() -> None:
    decoder = SkipDecoder(CONFIG).eval()
    x, memory = draw(2, 7, 16), draw(2, 3, 16, seed=2)
    found = decoder(x, memory)
    assert found.shape == x.shape
    assert (decoder(x, memory + 1) - found).abs().max() > 1e-3
    # attention has no order of its own
    torch.testing.assert_close(decoder(x, memory.flip(1)), found, rtol=0, atol=1e-5)


def test_positions_are_added_from_the_first() -> None:
    positions = LearnedPositions(9, 4)
    found = positions(torch.zeros(2, 3, 4))
    assert torch.equal(found[1], positions.pe[:3, 0])


def test_an_even_number_of_layers_is_refused() -> None:
    with pytest.raises(UserError, match="--layers 4 must be odd"):
        SkipEncoder(SkipTransformerConfig(layers=4))
