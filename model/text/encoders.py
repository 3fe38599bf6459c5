"""Frozen text encoders behind one interface.

``clip``: CLIP ViT-B/32, one vector per caption; ``clip_large`` and ``sentence_t5``, one as well, in
model/text/sentence_vectors.py. ``bert``: DistilBERT, one vector per word piece. ``builtin`` and
``wordllama``: a vector per word or piece without a network, in model/text/word_tokens.py.

Every encoder takes its captions one by one: with others beside it, a caption would come out
different in its last bits, by the padding and by how many there are.
"""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_loaders.captions import MAX_CHARACTERS
from model.text.condition import Condition, TextEncoder, pad_tokens, pooled_condition
from model.text.openai_clip import CLIP_FILE, load_openai_clip
from model.text.pretrained import from_pretrained
from model.text.sentence_vectors import (
    CLIP_LARGE,
    SENTENCE_T5,
    ClipLargeEncoder,
    SentenceT5Encoder,
)
from model.text.word_tokens import BuiltinEncoder, WordLlamaEncoder
from utils.errors import UserError
from utils.options import option

CLIP_POSITIONS = 77
CLIP_CONTEXT = 22  # sot + 20 word pieces + eot: MDM's cut for HumanML3D and KIT
KINDS = ("clip", "bert", "builtin", "wordllama", "clip_large", "sentence_t5")
TOKEN_KINDS = ("bert", "builtin", "wordllama")  # a token per word or word piece


class DistilBertEncoder:
    """All word pieces of the last hidden state, [CLS] and [SEP] included; no truncation."""

    pooled = False

    def __init__(self, path: str, device: torch.device | str = "cpu") -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = from_pretrained(AutoTokenizer, path, "DistilBERT")
        self.model = from_pretrained(AutoModel, path, "DistilBERT", weights=True).to(device).eval()
        self.model.requires_grad_(False)
        self.width: int = self.model.config.hidden_size
        self.max_tokens: int = self.model.config.max_position_embeddings

    def encode(self, captions: list[str]) -> Condition:
        """Raises UserError for a caption that is longer than the model's positions."""
        return pad_tokens([self._tokens(caption) for caption in captions])

    @torch.no_grad()
    def _tokens(self, caption: str) -> Tensor:
        """``[L, E]``."""
        ids = self.tokenizer([caption], return_tensors="pt")["input_ids"]
        if ids.shape[1] > self.max_tokens:
            raise UserError(
                f"a caption has {ids.shape[1]} word pieces, DistilBERT takes {self.max_tokens}: "
                f"{caption[:60]!r}..."
            )
        return self.model(input_ids=ids.to(self.model.device)).last_hidden_state[0]


class ClipEncoder:
    """CLIP's text feature at the end token, projected, not normalised.

    Captions are cut to `max_tokens`: MDM's 22, or all 77 that CLIP has positions for.
    """

    pooled = True

    def __init__(
        self, path: str, device: torch.device | str = "cpu", max_tokens: int = CLIP_CONTEXT
    ) -> None:
        self.tokenizer, model = _load_clip(path)
        self.max_tokens = max_tokens
        self.model = model.to(device).eval().requires_grad_(False)
        self.width: int = self.model.config.projection_dim

    def encode(self, captions: list[str]) -> Condition:
        return pooled_condition(torch.cat([self._vector(caption) for caption in captions]))

    @torch.no_grad()
    def _vector(self, caption: str) -> Tensor:
        """``[1, E]``."""
        ids = clip_token_ids(self.tokenizer, [caption], self.max_tokens).to(self.model.device)
        # Hugging Face pools at the first end token when eos_token_id is CLIP's true one (49407)
        # and at the largest id otherwise; both are the same position here. Positions after it
        # cannot be seen by causal attention, so no attention mask is needed.
        return self.model(input_ids=ids).text_embeds


def clip_token_ids(
    tokenizer: object, captions: list[str], max_tokens: int = CLIP_CONTEXT
) -> Tensor:
    """Token ids ``[B, 77]``: cut to `max_tokens` with the end token last, then padded with zeros.

    HTML entities are resolved twice before, as OpenAI's tokenizer does.
    """
    captions = [html.unescape(html.unescape(caption)) for caption in captions]
    batch = tokenizer(captions, truncation=True, max_length=max_tokens)  # type: ignore[operator]
    ids = torch.zeros(len(captions), CLIP_POSITIONS, dtype=torch.long)
    for row, tokens in zip(ids, batch["input_ids"], strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    return ids


class PooledEncoder:
    """Mean over the tokens of another encoder, for networks that take one vector per caption."""

    pooled = True

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder, self.width = encoder, encoder.width

    def encode(self, captions: list[str]) -> Condition:
        condition = self.encoder.encode(captions)
        rows = [tokens[mask] for tokens, mask in zip(condition.tokens, condition.mask, strict=True)]
        return pooled_condition(torch.stack([_pool(row) for row in rows]))


def _pool(row: Tensor) -> Tensor:
    """One vector ``[E]`` of tokens ``[L, E]``: their mean, times sqrt(L), as the mean of L random
    word vectors shrinks with that. Without tokens it is zero."""
    return row.mean(0) * len(row) ** 0.5 if len(row) else row.sum(0)


class CachedTextEncoder:
    """Encodes every distinct caption once and keeps its tokens in memory.

    What is missing differs between a resumed run and an unbroken one, which agree to the last bit
    because no encoder's tokens depend on the captions beside them.
    """

    def __init__(self, encoder: TextEncoder, batch_size: int = 256) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self.width, self.pooled = encoder.width, encoder.pooled
        self._tokens: dict[str, Tensor] = {}

    def encode(self, captions: list[str]) -> Condition:
        """Raises UserError for a caption that would take gigabytes, as attention does."""
        longest = max(map(len, captions), default=0)
        if longest > MAX_CHARACTERS:
            raise UserError(f"a caption has {longest} characters; shorten it to {MAX_CHARACTERS}")
        missing = [c for c in dict.fromkeys(captions) if c not in self._tokens]
        for start in range(0, len(missing), self.batch_size):
            part = missing[start : start + self.batch_size]
            condition = self.encoder.encode(part)
            for caption, tokens, mask in zip(part, condition.tokens, condition.mask, strict=True):
                self._tokens[caption] = tokens[mask].cpu()
        return pad_tokens([self._tokens[caption] for caption in captions])


@dataclass
class TextEncoderOptions:
    """For every script that encodes captions."""

    text_encoder_path: str = option("", "local folder of CLIP or DistilBERT", free="resume")


def build_text_encoder(
    kind: str, path: str | None = None, device: torch.device | str = "cpu"
) -> TextEncoder:
    """The encoder of this kind; `path` is a local `transformers` folder or a hub name, for CLIP
    also OpenAI's ``ViT-B-32.pt`` or its folder.

    Raises UserError for an unknown kind or a model that cannot be loaded.
    """
    if kind == "builtin":
        return BuiltinEncoder()
    if kind == "wordllama":
        return WordLlamaEncoder()
    if kind == "bert":
        return DistilBertEncoder(path or "distilbert-base-uncased", device)
    if kind == "clip":
        return ClipEncoder(path or "openai/clip-vit-base-patch32", device)
    if kind == "clip_large":
        return ClipLargeEncoder(path or CLIP_LARGE, device)
    if kind == "sentence_t5":
        return SentenceT5Encoder(path or SENTENCE_T5, device)
    raise UserError(f"--text_encoder_type {kind} is unknown; choose one of {', '.join(KINDS)}")


def _load_clip(path: str) -> tuple[Any, Any]:
    """Tokenizer and text model of OpenAI's file, else of a `transformers` folder or hub name."""
    file = Path(path) / CLIP_FILE if (Path(path) / CLIP_FILE).is_file() else Path(path)
    if file.suffix == ".pt":
        return load_openai_clip(file)
    from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast

    tokenizer = from_pretrained(CLIPTokenizerFast, path, "CLIP")
    return tokenizer, from_pretrained(CLIPTextModelWithProjection, path, "CLIP", weights=True)
