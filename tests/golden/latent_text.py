"""The text encoders of MLD and MotionLCM against upstream's numbers, through `transformers`
folders."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from model.text.condition import pad_tokens
from model.text.sentence_vectors import DENSE_FILES, ClipLargeEncoder, SentenceT5Encoder
from tests.golden.base import Golden, Row, covers
from utils.files import save_tensors, write_json, write_text

END = "</s>"


def write_clip(
    folder: Path, config: dict[str, Any], vocab: dict[str, int], state: dict[str, Tensor]
) -> None:
    """A `transformers` folder with these weights, this vocabulary and the one merge of the file."""
    model = CLIPTextModelWithProjection(CLIPTextConfig(**config))
    model.load_state_dict(state)
    model.save_pretrained(folder)
    write_json(folder / "vocab.json", vocab)
    write_text(folder / "merges.txt", "#version: 0.2\na n</w>\n")
    end = "<|endoftext|>"
    special = {"unk_token": end, "pad_token": end, "eos_token": end}
    settings = {"tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>", **special}
    write_json(folder / "tokenizer_config.json", settings)


def write_sentence_t5(
    folder: Path,
    config: dict[str, Any],
    pieces: list[tuple[str, float]],
    state: dict[str, Tensor],
    dense: Tensor,
) -> None:
    """A sentence-T5 folder: encoder, unigram tokenizer and the layer after the mean."""
    model = T5EncoderModel(T5Config(**config))
    model.load_state_dict(state)
    model.save_pretrained(folder)
    names = [piece for piece, _ in pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=names.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, names.index(END))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": END, "pad_token": "<pad>", "unk_token": "<unk>"}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(folder / "tokenizer_config.json", settings)
    save_tensors(folder / DENSE_FILES[1], {"linear.weight": dense})


@covers("mld_text*.npz")
@torch.no_grad()
def texts(g: Golden) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as directory:
        yield from clip(g, Path(directory) / "clip")
        yield from sentence_t5(g, Path(directory) / "t5")


def clip(g: Golden, folder: Path) -> Iterator[Row]:
    config, vocab = (json.loads(g.scalar(f"clip/{name}_json")) for name in ("config", "vocab"))
    write_clip(folder, config, vocab, g.state_dict("clip/sd/"))
    encoder, captions = ClipLargeEncoder(str(folder)), g.strings("captions")
    ids = encoder.token_ids(captions)
    yield g.equal("clip/input_ids", ids, g["clip/input_ids"])
    ends = (ids == config["eos_token_id"]).int().argmax(dim=1)
    yield g.equal("clip/first_eos", ends, g["clip/first_eos"])
    hidden = encoder.model(input_ids=ids).last_hidden_state
    expected = g["clip/last_hidden_state"]
    hidden = hidden[:, : expected.shape[1]]
    yield g.close("clip/last_hidden_state", hidden, expected, atol=2e-5)
    found = encoder.encode(captions)
    yield g.close("clip/text_emb", found.tokens, g["clip/text_emb"], atol=2e-5)


def sentence_t5(g: Golden, folder: Path) -> Iterator[Row]:
    pieces = list(zip(g.strings("t5/pieces"), g["t5/piece_scores"].tolist(), strict=True))
    config = json.loads(g.scalar("t5/config_json"))
    write_sentence_t5(folder, config, pieces, g.state_dict("t5/sd/"), g.tensor("t5/dense_weight"))
    encoder, captions = SentenceT5Encoder(str(folder)), g.strings("captions")
    condition = pad_tokens([encoder.token_ids(caption)[:, None] for caption in captions])
    ids, attention = condition.tokens.squeeze(-1), condition.mask.long()
    yield g.equal("t5/input_ids", ids, g["t5/input_ids"])
    yield g.equal("t5/attention_mask", attention, g["t5/attention_mask"])
    hidden = encoder.model(input_ids=ids, attention_mask=attention).last_hidden_state
    valid = attention.bool().numpy()
    expected = g["t5/last_hidden_state"][valid]
    yield g.close("t5/last_hidden_state", hidden.numpy()[valid], expected, atol=2e-5)
    weights = attention.unsqueeze(-1)
    mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    yield g.close("t5/mean_pooled", mean, g["t5/mean_pooled"], atol=2e-5)
    found = encoder.encode(captions)
    yield g.close("t5/text_emb", found.tokens, g["t5/text_emb"], atol=2e-5)
