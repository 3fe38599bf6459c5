"""Which frames of a padded batch are valid."""

import torch
from torch import Tensor


def length_mask(lengths: Tensor, frames: int) -> Tensor:
    """``[B]`` -> ``[B, frames]``, True = valid."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """``[B, T, D]`` with zeros beyond the lengths ``[B]``."""
    return x.masked_fill(~length_mask(lengths, x.shape[1]).unsqueeze(-1), 0.0)


def match_frames(motions: Tensor, frames: int) -> Tensor:
    """Cut or zero-pad ``[N, T', D]`` to `frames`; both ends lie beyond every valid frame."""
    missing = frames - motions.shape[1]
    if missing > 0:
        return torch.nn.functional.pad(motions, (0, 0, 0, missing))
    return motions[:, :frames]
