"""One vector per caption: padding, the empty caption, and files that lack a part."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from model.text.encoders import CachedTextEncoder, build_text_encoder
from tests.golden.latent_text import write_clip, write_sentence_t5
from utils.errors import UserError
from utils.files import save_tensors

CAPTIONS = ["a man walks", "", "a man walks and then a man walks"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("texts") / "clip"
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "an</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]
    end = len(words) - 1
    sizes = {"hidden_size": 8, "intermediate_size": 16, "projection_dim": 6}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    config = {"vocab_size": len(words), **sizes, **layers, **tokens}
    torch.manual_seed(0)
    state = CLIPTextModelWithProjection(CLIPTextConfig(**config)).state_dict()
    write_clip(folder, config, {word: i for i, word in enumerate(words)}, state)
    return str(folder)


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("texts") / "t5"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -5.0), ("▁", -4.0)]
    pieces += [("▁a", -1.0), ("▁man", -1.1), ("▁walks", -1.2), *((c, -6.0) for c in LETTERS)]
    sizes = {"vocab_size": len(pieces), "d_model": 8, "d_kv": 4, "d_ff": 16}
    config = {**sizes, "num_layers": 1, "num_heads": 2, "pad_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(0)
    state = T5EncoderModel(T5Config(**config)).state_dict()
    write_sentence_t5(folder, config, pieces, state, torch.randn(5, 8))
    return str(folder)


@pytest.mark.parametrize(("kind", "width"), [("clip_large", 6), ("sentence_t5", 5)])
def test_vectors_do_not_depend_on_the_batch(
    kind: str, width: int, clip_folder: str, t5_folder: str
) -> None:
    path = clip_folder if kind == "clip_large" else t5_folder
    encoder = build_text_encoder(kind, path)
    assert (encoder.width, encoder.pooled) == (width, True)
    together = encoder.encode(CAPTIONS)
    assert together.tokens.shape == (3, 1, width)
    assert together.mask.all()
    alone = torch.cat([encoder.encode([caption]).tokens for caption in CAPTIONS])
    assert torch.equal(alone, together.tokens)
    assert torch.equal(CachedTextEncoder(encoder).encode(CAPTIONS).tokens, together.tokens)
    assert (together.tokens[0] - together.tokens[1]).abs().max() > 1e-4


def test_only_sentence_t5_has_unit_length(clip_folder: str, t5_folder: str) -> None:
    lengths = build_text_encoder("sentence_t5", t5_folder).encode(CAPTIONS).tokens.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(3, 1))
    lengths = build_text_encoder("clip_large", clip_folder).encode(CAPTIONS).tokens.norm(dim=-1)
    assert (lengths - 1).abs().max() > 0.01


def test_long_captions_are_cut(clip_folder: str, t5_folder: str) -> None:
    long = "a man walks " * 100
    assert build_text_encoder("clip_large", clip_folder).token_ids([long]).shape == (1, 77)
    ids = build_text_encoder("sentence_t5", t5_folder).token_ids(long)
    assert ids.shape == (256,)
    assert ids[-1] == 1


def test_a_missing_last_layer_is_named(t5_folder: str, tmp_path) -> None:
    folder = tmp_path / "t5"
    shutil.copytree(t5_folder, folder)
    dense = folder / "2_Dense" / "pytorch_model.bin"
    save_tensors(dense, {"weight": torch.zeros(5, 8)})
    with pytest.raises(UserError, match=r"must hold linear\.weight"):
        build_text_encoder("sentence_t5", str(folder))
    dense.unlink()
    with pytest.raises(UserError, match="the last layer of sentence-T5"):
        build_text_encoder("sentence_t5", str(folder))
    with pytest.raises(UserError, match="--text_encoder_path"):
        build_text_encoder("sentence_t5", str(Path(tmp_path) / "missing"))
