"""Encoded captions, the interface of the encoders that make them, and ways to put them together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """Encoded captions: tokens ``[B, L, E]`` and their mask ``[B, L]``, True = valid."""

    tokens: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def repeat_interleave(self, k: int) -> "Condition":
        """Every caption k times in a row: ``[B*k, L, E]``."""
        return Condition(
            self.tokens.repeat_interleave(k, dim=0), self.mask.repeat_interleave(k, dim=0)
        )

    def repeat(self, k: int) -> "Condition":
        """The whole batch k times: ``[k*B, L, E]``."""
        return Condition(self.tokens.repeat(k, 1, 1), self.mask.repeat(k, 1))

    def __getitem__(self, rows: Tensor | slice) -> "Condition":
        return Condition(self.tokens[rows], self.mask[rows])

    @staticmethod
    def cat(parts: Sequence["Condition"]) -> "Condition":
        """Batches of captions, one after the other, padded to the longest caption."""
        size = max(part.tokens.shape[1] for part in parts)
        missing = [size - part.tokens.shape[1] for part in parts]
        tokens = [F.pad(p.tokens, (0, 0, 0, n)) for p, n in zip(parts, missing, strict=True)]
        masks = [F.pad(p.mask, (0, n)) for p, n in zip(parts, missing, strict=True)]
        return Condition(torch.cat(tokens), torch.cat(masks))

    def to(self, device: torch.device | str) -> "Condition":
        return Condition(self.tokens.to(device), self.mask.to(device))


class TextEncoder(Protocol):
    """width E of a token; pooled: one token per caption."""

    width: int
    pooled: bool

    def encode(self, captions: list[str]) -> Condition:
        """Captions -> `Condition` on the encoder's device. Deterministic, without gradient."""


def pooled_condition(vectors: Tensor) -> Condition:
    """One vector per caption ``[B, E]`` as a condition of one token."""
    return Condition(vectors.unsqueeze(1), vectors.new_ones(len(vectors), 1, dtype=torch.bool))


def pad_tokens(rows: list[Tensor]) -> Condition:
    """Token sequences ``[L_i, E]`` to a zero-padded `Condition`."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Condition(
        tokens, torch.arange(tokens.shape[1], device=lengths.device) < lengths[:, None]
    )
