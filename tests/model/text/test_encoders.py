"""Text encoders: fixed values, independence of the batch, and the cache."""

import contextlib
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel

from model.text.encoders import (
    BuiltinEncoder,
    CachedTextEncoder,
    Condition,
    DistilBertEncoder,
    PooledEncoder,
    build_text_encoder,
    clip_token_ids,
    pad_tokens,
)
from tests.golden.text_encoders import write_distilbert
from tests.paths import ROOT
from utils.errors import UserError
from utils.files import read_json, write_json

CAPTIONS = ["a person walks", "a man raises his left arm and then kicks", ""]


class Counting:
    """Two tokens of width 3 per word; remembers what it was asked."""

    width, pooled = 3, False

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode(self, captions: list[str]) -> Condition:
        self.asked.append(captions)
        rows = [torch.full((2 * len(c.split()) + 2, 3), float(len(c))) for c in captions]
        return pad_tokens(rows)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory) -> str:
    """A DistilBERT of width 8 with 12 positions."""
    folder = tmp_path_factory.mktemp("texts") / "bert"
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "walks", "left"]
    config = {
        "vocab_size": len(vocab),
        "dim": 8,
        "hidden_dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "max_position_embeddings": 12,
    }
    torch.manual_seed(0)
    state = DistilBertModel(DistilBertConfig(**config)).state_dict()
    write_distilbert(folder, config, vocab, state)
    return str(folder)


def test_word_vectors_never_change() -> None:
    """Trained checkpoints depend on these numbers."""
    encoder = BuiltinEncoder()
    walks, left = (torch.from_numpy(encoder.word(word)[:4]) for word in ("walks", "left"))
    expected = torch.tensor([1.1166042, -0.5356323, 0.9913823, -0.5866118])
    torch.testing.assert_close(walks, expected, rtol=1e-6, atol=1e-6)
    expected = torch.tensor([-0.3174036, 0.1769198, -0.4408820, 0.8929753])
    torch.testing.assert_close(left, expected, rtol=1e-6, atol=1e-6)


def test_builtin_tokens_are_the_same_in_another_process() -> None:
    script = (
        "import hashlib; from model.text.encoders import BuiltinEncoder; "
        f"tokens = BuiltinEncoder().encode({CAPTIONS!r}).tokens; "
        "print(hashlib.sha256(tokens.numpy().tobytes()).hexdigest())"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(run.stdout)
    assert len(digests) == 1


def test_builtin_tokens_bind_neighbours_and_order() -> None:
    def tokens(caption: str) -> torch.Tensor:
        return BuiltinEncoder().encode([caption]).tokens[0]

    assert torch.equal(tokens("A man walks."), tokens("a man, walks"))
    assert tokens("a man").shape == (4, 256)  # two words between start and end
    left_arm, right_arm = tokens("left arm right leg"), tokens("right arm left leg")
    assert (left_arm[2] - right_arm[2]).abs().max() > 0.1, "arm knows which side it is"
    assert (tokens("left left")[1] - tokens("left left")[2]).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["builtin", "bert"])
def test_a_caption_is_encoded_alike_alone_and_in_a_batch(kind: str, bert_folder: str) -> None:
    encoder = build_text_encoder(kind, bert_folder)
    captions = ["a man walks left", "a man", ""]
    together = encoder.encode(captions)
    assert together.mask.sum(dim=1).tolist() == [6, 4, 2]
    for caption, tokens, mask in zip(captions, together.tokens, together.mask, strict=True):
        assert torch.equal(tokens[mask], encoder.encode([caption]).tokens[0])


def test_distilbert_is_frozen_and_refuses_what_it_would_have_to_cut(bert_folder: str) -> None:
    encoder = DistilBertEncoder(bert_folder)
    assert not encoder.model.training
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert len(encoder.encode(["a " * 10])) == 1
    with pytest.raises(UserError, match="13 word pieces, DistilBERT takes 12"):
        encoder.encode(["a " * 11])


def test_clip_ids_are_cut_to_22_with_the_end_token_last() -> None:
    def tokenizer(captions: list[str], truncation: bool, max_length: int) -> dict:
        assert truncation
        words = [list(range(1, 1 + len(caption.split()))) for caption in captions]
        return {"input_ids": [[98, *ids[: max_length - 2], 99] for ids in words]}

    ids = clip_token_ids(tokenizer, ["walk " * 30, "walk"])
    assert ids.shape == (2, 77)
    assert ids[0, 21] == 99
    assert torch.all(ids[0, 22:] == 0)
    assert ids[1, :4].tolist() == [98, 1, 99, 0]


def test_pooling_ignores_padding_and_keeps_the_scale() -> None:
    pooled = PooledEncoder(BuiltinEncoder())
    together = pooled.encode(CAPTIONS)
    assert together.tokens.shape == (3, 1, 256)
    assert together.mask.all()
    alone = torch.cat([pooled.encode([caption]).tokens for caption in CAPTIONS])
    assert torch.equal(together.tokens, alone)
    long = pooled.encode(["a man walks in a circle and then waves with both of his hands"])
    assert 0.8 < (long.tokens.std() / together.tokens[0].std()).item() < 2.5


def test_the_cache_encodes_every_caption_once() -> None:
    inner = Counting()
    cached = CachedTextEncoder(inner)
    cached.encode(["walk", "run fast", "walk"])
    cached.encode(["run fast", "jump"])
    assert inner.asked == [["walk", "run fast"], ["jump"]]


@pytest.mark.parametrize("kind", ["builtin", "bert"])
def test_what_was_cached_before_changes_no_bit(kind: str, bert_folder: str) -> None:
    """A resumed run begins with an empty cache, in the middle of the captions."""
    captions = ["a man", "a man walks left", "man left", "walks"]
    unbroken, resumed = (CachedTextEncoder(build_text_encoder(kind, bert_folder)) for _ in range(2))
    unbroken.encode(captions[:1] + captions[2:])
    assert torch.equal(unbroken.encode(captions).tokens, resumed.encode(captions).tokens)


def test_a_caption_of_ten_megabytes_is_refused() -> None:
    with pytest.raises(UserError, match="10000000 characters; shorten it"):
        CachedTextEncoder(Counting()).encode(["a person walks", "a" * 10_000_000])


def test_the_cache_keeps_order_and_drops_old_padding() -> None:
    cached = CachedTextEncoder(Counting(), batch_size=2)
    cached.encode(["a b c d e", "a", "a b"])
    found = cached.encode(["a", "a b", "a"])
    fresh = Counting().encode(["a", "a b", "a"])
    assert torch.equal(found.tokens, fresh.tokens)
    assert torch.equal(found.mask, fresh.mask)


def test_conditions_repeat_as_batches_do() -> None:
    condition = Counting().encode(["a", "b c"])
    interleaved, repeated = condition.repeat_interleave(2), condition.repeat(2)
    assert interleaved.mask.sum(1).tolist() == [4, 4, 6, 6]
    assert repeated.mask.sum(1).tolist() == [4, 6, 4, 6]
    assert torch.equal(interleaved[2:].tokens[0], condition.tokens[1])
    assert len(interleaved) == len(repeated) == 4


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_a_folder_without_a_model_is_told_in_one_line(kind: str, tmp_path) -> None:
    with pytest.raises(UserError, match="cannot load the folder") as error:
        build_text_encoder(kind, str(tmp_path))
    assert "\n" not in str(error.value)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UserError, match="clip, bert, builtin"):
        build_text_encoder("word2vec")


def test_a_caption_without_tokens_is_pooled_to_zero() -> None:
    class Nothing:
        width, pooled = 3, False

        def encode(self, captions: list[str]) -> Condition:
            rows = [torch.ones(len(caption.split()), 3) for caption in captions]
            return pad_tokens(rows)

    found = PooledEncoder(Nothing()).encode(["", "walks fast"]).tokens[:, 0]
    torch.testing.assert_close(found, torch.tensor([[0.0], [2**0.5]]).expand(2, 3))


CANARY = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import DistilBertConfig as Config, DistilBertModel as Model
from transformers import DistilBertTokenizer as Tokenizer
"""


@pytest.mark.parametrize("kind", ["bert", "clip", "clip_large", "sentence_t5"])
@pytest.mark.parametrize("model_type", ["distilbert", "unheard_of"])
def test_no_code_of_a_folder_is_run_whatever_is_answered(
    kind: str, model_type: str, bert_folder: str, tmp_path, monkeypatch
) -> None:
    folder, mark = tmp_path / "evil", tmp_path / "ran"
    shutil.copytree(bert_folder, folder)
    (folder / "evil.py").write_text(CANARY.format(mark=str(mark)))
    entries = {
        "config.json": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
        "tokenizer_config.json": {"AutoTokenizer": ["evil.Tokenizer", None]},
    }
    for name, entry in entries.items():
        content = read_json(folder / name)
        content |= {"model_type": model_type, "auto_map": entry, "tokenizer_class": "Tokenizer"}
        write_json(folder / name, content)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with contextlib.suppress(UserError):
        build_text_encoder(kind, str(folder))
    assert not mark.exists()
    assert asked == []


@pytest.mark.parametrize("kind", ["bert", "clip", "clip_large", "sentence_t5"])
def test_pickled_weights_are_refused(kind: str, bert_folder: str, tmp_path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(bert_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load the folder"):
        build_text_encoder(kind, str(folder))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 100),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "distilbert", "dim": "wide"}'),
        ("config.json", b'{"model_type": "distilbert", "n_layers": []}'),
        ("tokenizer_config.json", b"\xff"),
        ("tokenizer.json", b"[1"),
    ],
)
def test_damaged_folders_are_told_in_one_line(
    name: str, content: bytes, bert_folder: str, tmp_path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(bert_folder, folder)
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot load the folder") as error:
        build_text_encoder("bert", str(folder))
    assert "\n" not in str(error.value)
