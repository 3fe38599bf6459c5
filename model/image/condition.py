"""Captions as diffusion models of pictures read them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.text.condition import Condition


@dataclass(frozen=True)
class ImageCondition(Condition):
    """Tokens ``[B, L, E]`` and their mask as in `Condition`, and one vector per caption ``[B, P]``
    for the models that read one as well (None for the others)."""

    pooled: Tensor | None = None

    @staticmethod
    def of(tokens: Tensor, pooled: Tensor | None = None) -> "ImageCondition":
        """All tokens are read, padding too, as these models are trained."""
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return ImageCondition(tokens, mask, pooled)

    def repeat_interleave(self, k: int) -> "ImageCondition":
        return self[torch.arange(len(self), device=self.tokens.device).repeat_interleave(k)]

    def repeat(self, k: int) -> "ImageCondition":
        return self[torch.arange(len(self), device=self.tokens.device).repeat(k)]

    def __getitem__(self, rows: Tensor | slice) -> "ImageCondition":
        pooled = None if self.pooled is None else self.pooled[rows]
        return ImageCondition(self.tokens[rows], self.mask[rows], pooled)

    @staticmethod
    def cat(parts: Sequence[Condition]) -> "ImageCondition":
        """Captions of one model, one after the other."""
        joined = Condition.cat(parts)
        pooled = [p.pooled for p in parts if isinstance(p, ImageCondition) and p.pooled is not None]
        return ImageCondition(joined.tokens, joined.mask, torch.cat(pooled) if pooled else None)

    def to(self, device: torch.device | str) -> "ImageCondition":
        pooled = None if self.pooled is None else self.pooled.to(device)
        return ImageCondition(self.tokens.to(device), self.mask.to(device), pooled)
