"""OpenAI's CLIP file: the model that its weights make, strict keys, and no code from the file."""

import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch

from model.text.encoders import build_text_encoder
from model.text.openai_clip import (
    BPE_FILE,
    CLIP_FILE,
    load_openai_clip,
    load_tokenizer,
    read_state_dict,
    text_model,
)
from model.text.torchscript_archive import read_torchscript
from tests.model.text.openai_files import (
    EMBEDDING,
    VOCABULARY,
    openai_state,
    tiny_reference,
    write_archive,
    write_merges,
)
from utils.errors import UserError

NOTHING = re.compile("(?!)")
START, END = VOCABULARY - 2, VOCABULARY - 1


@pytest.fixture(scope="module")
def reference():
    return tiny_reference()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, reference) -> Path:
    path = tmp_path_factory.mktemp("openai") / "clip"
    write_archive(path / CLIP_FILE, openai_state(reference))
    write_merges(path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def rewrite(path: Path, source: Path, changes: dict[str, bytes]) -> Path:
    """The archive `source` with other contents of some members (names without the root folder)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name.split("/", 1)[1], old.read(name)))
    return path


def test_the_archive_gives_the_model_of_its_weights(folder: Path, reference) -> None:
    _, model = load_openai_clip(folder / CLIP_FILE)
    assert not model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())
    expected = reference.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    ids = torch.tensor([[START, 70, 331, END, 0, 0], [START, 5, END, 0, 0, 0]])
    assert torch.equal(model(input_ids=ids).text_embeds, reference(input_ids=ids).text_embeds)


def test_a_saved_state_dict_is_read_alike(folder: Path, reference, tmp_path) -> None:
    torch.save(openai_state(reference), tmp_path / "clip.pt")
    plain, archive = read_state_dict(tmp_path / "clip.pt"), read_state_dict(folder / CLIP_FILE)
    assert plain.keys() == archive.keys()
    assert all(torch.equal(plain[key], archive[key]) for key in plain)
    assert not any(key.startswith("visual") for key in plain)


def test_views_of_one_storage_are_cut_out_rightly(tmp_path) -> None:
    numbers = torch.arange(24.0).view(4, 6)
    state = {"whole": numbers, "turned": numbers.T, "part": numbers[1:3, ::2]}
    read = read_torchscript(write_archive(tmp_path / "views.pt", state), NOTHING)
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ln_final.bias": None}, "missing: text_model.final_layer_norm.bias"),
        ({"transformer.resblocks.1.mlp.c_fc.bias": None}, "missing: .*layers.1.mlp.fc1.bias"),
        ({"transformer.resblocks.0.extra": torch.ones(1)}, "unknown: .*resblocks.0.extra"),
        ({"ln_final.bias": torch.ones(3)}, "of another shape: .*final_layer_norm.bias"),
        ({"token_embedding.weight": None}, "no CLIP text tower"),
    ],
)
def test_every_key_is_consumed_or_named(folder: Path, changes: dict, reason: str) -> None:
    state = {**read_state_dict(folder / CLIP_FILE), **changes}
    with pytest.raises(UserError, match=reason):
        text_model({key: value for key, value in state.items() if value is not None})


def test_loading_draws_nothing_from_the_random_state(folder: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_openai_clip(folder / CLIP_FILE)
    assert torch.equal(torch.rand(3), expected)


class Command:
    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, os.mkdir, eval], ids=lambda f: f.__name__)
def test_code_in_the_archive_is_refused_and_not_run(folder: Path, tmp_path, function) -> None:
    mark = tmp_path / "ran"
    arguments = {
        os.system: (f"touch {mark}",),
        os.mkdir: (str(mark),),
        eval: (f"__import__('os').mkdir({str(mark)!r})",),
    }[function]
    content = pickle.dumps({"weight": Command(function, *arguments)})
    path = rewrite(tmp_path / "bad.pt", folder / CLIP_FILE, {"data.pkl": content})
    assert "could run code" in refusal(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        pickle.dumps([1, 2]),
        b"c__torch__\nM\n)\x81}X\x01\x00\x00\x00aQb.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00K\x01K\x01tR.",
    ],
    ids=["empty", "text", "list", "reference", "tensor"],
)
def test_a_senseless_description_is_one_clear_line(folder: Path, tmp_path, content: bytes) -> None:
    refusal(rewrite(tmp_path / "bad.pt", folder / CLIP_FILE, {"data.pkl": content}))


def test_damaged_files_are_one_clear_line(folder: Path, tmp_path) -> None:
    whole = (folder / CLIP_FILE).read_bytes()
    path = tmp_path / "bad.pt"
    for content in (b"", whole[:100], whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        refusal(path)
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF  # inside the numbers: the zip's checksum tells
    path.write_bytes(broken)
    assert "damaged" in refusal(path)
    assert "damaged" in refusal(rewrite(path, folder / CLIP_FILE, {"data/2": b"\0\0"}))
    assert "does not exist" in refusal(tmp_path / "absent.pt")


def test_the_vocabulary_follows_from_the_list_of_merges(folder: Path) -> None:
    """Bytes, bytes that end a word, merges in order, start, end: numbers counted by hand."""
    tokenizer = load_tokenizer(folder)
    letter = {c: ord(c) - ord("!") for c in "aklsw"}  # "!" is the first printable byte
    ids = tokenizer(["a walks", "walk"])["input_ids"]
    assert ids[0] == [START, 256 + letter["a"], 512 + MERGED["walks</w>"], END]
    assert ids[1] == [START, 512 + MERGED["wa"], letter["l"], 256 + letter["k"], END]


MERGED = {"wa": 0, "lk": 1, "walk": 2, "walks</w>": 3}


def test_missing_and_damaged_vocabularies_are_named(folder: Path, tmp_path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer for CLIP .*download_clip.sh"):
        load_tokenizer(tmp_path)
    for content in (b"text", (folder / BPE_FILE).read_bytes()[:30]):
        (tmp_path / BPE_FILE).write_bytes(content)
        with pytest.raises(UserError, match=r"not a readable \.gz file"):
            load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["", CLIP_FILE], ids=["folder", "file"])
def test_the_text_encoder_takes_the_file_or_its_folder(folder: Path, reference, name: str) -> None:
    encoder = build_text_encoder("clip", str(folder / name))
    assert (encoder.width, encoder.pooled) == (EMBEDDING, True)
    condition = encoder.encode(["a walks", "a &amp;amp; a", "a & a"])
    assert condition.tokens.shape == (3, 1, EMBEDDING)
    assert torch.equal(condition.tokens[1], condition.tokens[2]), "entities are resolved"
    ids = torch.zeros(1, 77, dtype=torch.long)
    ids[0, :4] = torch.tensor(encoder.tokenizer(["a walks"])["input_ids"][0])
    expected = reference(input_ids=ids).text_embeds
    torch.testing.assert_close(condition.tokens[0], expected, rtol=1e-5, atol=1e-6)
