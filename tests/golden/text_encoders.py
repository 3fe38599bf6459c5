"""CLIP and DistilBERT text encoders against upstream's numbers, through `transformers` folders."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DistilBertConfig, DistilBertModel

from model.text.encoders import DistilBertEncoder
from tests.golden.base import Golden, Row, covers


def write_distilbert(
    folder: Path, config: dict[str, Any], vocab: list[str], state: dict[str, Tensor]
) -> None:
    """A `transformers` folder with these weights and this WordPiece vocabulary."""
    folder.mkdir(parents=True)
    model = DistilBertModel(DistilBertConfig(**config))
    model.load_state_dict(state)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    tokenizer = {
        "tokenizer_class": "DistilBertTokenizer",
        "do_lower_case": True,
        "model_max_length": config.get("max_position_embeddings", 512),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


@covers("distilbert_text*.npz")
@torch.no_grad()
def distilbert(g: Golden) -> Iterator[Row]:
    config = {key.split("/")[1]: g.scalar(key) for key in g.keys("config/")}
    vocab = g.strings("vocab")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "bert"
        write_distilbert(folder, {**config, "vocab_size": len(vocab)}, vocab, g.state_dict())
        encoder = DistilBertEncoder(str(folder))
        captions = g.strings("captions")
        batch = encoder.tokenizer(captions, return_tensors="pt", padding=True)
        yield g.equal("input_ids", batch["input_ids"], g["input_ids"])
        yield g.equal("attention_mask", batch["attention_mask"], g["attention_mask"])
        condition = encoder.encode(captions)
    yield g.equal("tokens_mask", ~condition.mask, g["tokens_mask"])
    expected = g.tensor("tokens_embed").transpose(0, 1)[condition.mask]
    yield g.close("tokens_embed", condition.tokens[condition.mask], expected, atol=2e-5)
