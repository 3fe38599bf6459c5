"""TMR's transformers compute what PyTorch's own layers compute."""

import inspect

import pytest
import torch

from tmr.encoders import ActorDecoder, ActorEncoder, PositionalEncoding
from utils.positions import sinusoidal_table

SIZES = {"latent_dim": 16, "ff_size": 24, "num_layers": 2, "num_heads": 2, "dropout": 0.0}
MASK = torch.arange(7) < torch.tensor([3, 7, 5])[:, None]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [ActorEncoder, ActorDecoder])
def test_the_sizes_are_the_published_ones(kind) -> None:
    defaults = inspect.signature(kind).parameters
    published = {"latent_dim": 256, "ff_size": 1024, "num_layers": 6, "num_heads": 4}
    assert {name: defaults[name].default for name in published} == published
    assert defaults["dropout"].default == 0.1
    assert kind is ActorDecoder or defaults["vae"].default is True


def test_positions_are_added() -> None:
    x = draw(2, 5, 16)
    found = PositionalEncoding(16, dropout=0.0)(x)
    torch.testing.assert_close(found - x, sinusoidal_table(5, 16).expand(2, -1, -1))
    assert PositionalEncoding(16, dropout=0.0).pe.shape[0] == 5000
    assert not PositionalEncoding(16, dropout=0.0).state_dict()


@torch.no_grad()
@pytest.mark.parametrize("vae", [True, False])
def test_the_encoder_reads_the_tokens_and_all_valid_frames(vae: bool) -> None:
    torch.manual_seed(0)
    encoder, x = ActorEncoder(6, vae, **SIZES).eval(), draw(3, 7, 6)
    count = 2 if vae else 1
    hidden = torch.cat([torch.zeros(3, count, dtype=torch.bool), ~MASK], dim=1)
    frames = encoder.projection(x)
    whole = torch.cat([encoder.tokens.expand(3, -1, -1), frames], dim=1)
    whole = whole + sinusoidal_table(7 + count, 16)
    expected = encoder.seqTransEncoder(whole, src_key_padding_mask=hidden)[:, :count]
    assert encoder(x, MASK).shape == (3, count, 16)
    torch.testing.assert_close(encoder(x, MASK), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_decoder_makes_frames_of_the_latent_and_nothing_beyond() -> None:
    torch.manual_seed(0)
    decoder, z = ActorDecoder(6, **SIZES).eval(), draw(3, 16)
    queries = sinusoidal_table(7, 16).expand(3, -1, -1)
    decoded = decoder.seqTransDecoder(queries, z[:, None], tgt_key_padding_mask=~MASK)
    expected = decoder.final_layer(decoded).masked_fill(~MASK[..., None], 0)
    torch.testing.assert_close(decoder(z, MASK), expected, rtol=1e-5, atol=1e-5)
