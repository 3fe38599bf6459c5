"""Rewards by retrieval: captions and motions in one space, in which nearness is fit."""

from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from model.seam import Samples
from rewards.seam import similarity


class RetrievalModel(Protocol):
    """Encodes captions, and raw motions ``[B, T, D]`` with lengths ``[B]``, to ``[B, d]``."""

    @property
    def device(self) -> torch.device: ...

    def encode_motions(self, motions: Tensor, lengths: Tensor) -> Tensor: ...

    def encode_texts(self, captions: list[str]) -> Tensor: ...


Model = TypeVar("Model", bound=RetrievalModel)


class RetrievalReward(Generic[Model]):
    """r(x, c) = (cos(text latent, motion latent) + 1) / 2. Texts are embedded once per caption.

    Always in float32, also inside a training step with lower precision: rewards of candidates
    differ in the third decimal.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        return similarity(self.embed_texts(captions), self.embed(raw))

    def score_with_gradient(self, raw: Samples, captions: list[str]) -> Tensor:
        """`score`, differentiable in the motions; the captions' latents are constants."""
        return similarity(self.embed_texts(captions), self._embed(raw))

    @torch.no_grad()
    def embed(self, raw: Samples) -> Tensor:
        """Latents ``[B, d]`` of raw motions ``[B, T, D]``."""
        return self._embed(raw)

    def _embed(self, raw: Samples) -> Tensor:
        with torch.autocast(self.model.device.type, enabled=False):
            return self.model.encode_motions(raw.x.float(), raw.frames)

    @torch.no_grad()
    def embed_texts(self, captions: list[str]) -> Tensor:
        """Latents ``[B, d]``, each computed alone: none depends on which others were missing."""
        for caption in dict.fromkeys(captions):
            if caption not in self._texts:
                with torch.autocast(self.model.device.type, enabled=False):
                    self._texts[caption] = self.model.encode_texts([caption])[0]
        return torch.stack([self._texts[caption] for caption in captions])
