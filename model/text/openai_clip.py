"""OpenAI's CLIP file ``ViT-B-32.pt`` as the text tower and the tokenizer of `transformers`.

The file is a TorchScript archive in half precision; a plain state dict with the same keys is read
as well. The visual tower stays unread. The tokenizer's files lie beside the weights.
"""

import json
import re
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.text.pretrained import from_pretrained
from model.text.torchscript_archive import read_torchscript
from model.weights import load_strictly
from utils.bounded import gunzip
from utils.errors import UserError
from utils.files import load_tensors
from utils.unpickle import is_torchscript

CLIP_FILE = "ViT-B-32.pt"
BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
BPE_BYTES = 2**23  # OpenAI's list has 3 MB unpacked
MERGES = 49152 - 256 - 2  # the vocabulary was made for 49152 entries; the file lists more
HEAD_WIDTH = 64  # every released CLIP has heads of this width, and no file states it
# Keys of the file that are no weights of the text tower.
OTHER_KEYS = re.compile(
    r"visual\..*|logit_scale|input_resolution|context_length|vocab_size|.*\.attn_mask"
)
# OpenAI's name of a module or parameter, and its name in transformers.
TOWER = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def load_openai_clip(path: str | Path) -> tuple[Any, Any]:
    """Tokenizer and text model (float32, eval mode, frozen) of an OpenAI CLIP file.

    The weights are float16 in the file. Upstream also computes in float16, so its vectors differ
    from these by about 1e-3 relative. Raises UserError for whatever is missing, unsafe or does not
    fit.
    """
    path = Path(path)
    model = text_model(read_state_dict(path), where=str(path))
    return load_tokenizer(path.parent), model


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The text tower of a TorchScript archive or of a saved state dict, under OpenAI's keys.

    Raises UserError when the file is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; fetch it with: bash prepare/download_clip.sh")
    if is_torchscript(path):
        return read_torchscript(path, skip=OTHER_KEYS)
    state = load_tensors(path)
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise UserError(f"{path} is neither OpenAI's CLIP file nor a dictionary of tensors")
    return {key: value for key, value in state.items() if not OTHER_KEYS.fullmatch(key)}


def text_model(state: Mapping[str, Tensor], heads: int | None = None, where: str = "CLIP") -> Any:
    """OpenAI's text tower as a float32 CLIPTextModelWithProjection, in eval mode, without gradient.

    All sizes follow from the tensors, `heads` from the width where it is not given. Raises
    UserError that names keys which are missing, unknown or of a shape that does not fit.
    """
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    try:
        vocabulary, width = state["token_embedding.weight"].shape
        config = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=len(state["transformer.resblocks.0.mlp.c_fc.bias"]),
            num_hidden_layers=sum(key.endswith(".ln_1.weight") for key in state),
            num_attention_heads=heads or max(1, width // HEAD_WIDTH),
            max_position_embeddings=len(state["positional_embedding"]),
            projection_dim=state["text_projection"].shape[1],
            hidden_act="quick_gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{where} holds no CLIP text tower: it lacks {error}") from None
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        renamed |= _renamed(key, value.float())
    with torch.random.fork_rng(devices=[]):  # the draw of new weights is no draw of the run
        model = CLIPTextModelWithProjection(config)
    load_strictly(model, renamed, f"{where}: the text tower")
    return model.eval().requires_grad_(False)


def _renamed(key: str, value: Tensor) -> dict[str, Tensor]:
    """One tensor under its names in transformers; an unknown one keeps its name."""
    if key == "text_projection":
        return {"text_projection.weight": value.T}
    if key in TOWER:
        return {TOWER[key]: value}
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", key)
    if match is None:
        return {key: value}
    layer, module, kind = match.groups()
    prefix = f"text_model.encoder.layers.{layer}"
    if module == "attn.in_proj":  # queries, keys and values in one matrix
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{prefix}.self_attn.{name}_proj.{kind}": part for name, part in parts}
    return {f"{prefix}.{BLOCK[module]}.{kind}" if module in BLOCK else key: value}


def load_tokenizer(folder: Path) -> Any:
    """CLIP's byte-pair tokenizer from ``vocab.json`` and ``merges.txt`` or from OpenAI's own file.

    Raises UserError when the folder holds neither.
    """
    from transformers import CLIPTokenizerFast

    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return from_pretrained(CLIPTokenizerFast, str(folder), "CLIP")
    if not (folder / BPE_FILE).is_file():
        raise UserError(
            f"{folder} holds no tokenizer for CLIP ({BPE_FILE}, or vocab.json and merges.txt); "
            "fetch it with: bash prepare/download_clip.sh"
        )
    with tempfile.TemporaryDirectory() as directory:
        write_tokenizer_files(folder / BPE_FILE, Path(directory))
        return from_pretrained(CLIPTokenizerFast, directory, "CLIP")


def write_tokenizer_files(bpe: Path, folder: Path) -> None:
    """OpenAI's list of merges as the ``vocab.json`` and ``merges.txt`` that transformers reads.

    The vocabulary is every byte, every byte as the end of a word, every merged pair in order, and
    the two special tokens. Raises UserError when `bpe` is damaged.
    """
    try:
        lines = gunzip(bpe, BPE_BYTES).decode("utf-8").splitlines()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{bpe} is not a readable .gz file ({error})") from None
    merges = [line for line in lines[1 : MERGES + 1] if line]
    if not merges or any(len(merge.split(" ")) != 2 for merge in merges):
        raise UserError(f"{bpe} must list one pair of symbols per line below its first line")
    symbols = _byte_symbols()
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    words += [merge.replace(" ", "") for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def _byte_symbols() -> list[str]:
    """A printable character for each byte, in the order of the vocabulary: those that print as
    themselves first, then stand-ins from U+0100 on for the rest."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]
