"""Pictures of 8 bits as CLIP models read them: resized as each was trained, and normalised."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.image.packages import extra

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def eight_bits(images: Tensor) -> Tensor:
    """Pictures in [0, 1] as a file would keep them."""
    return (images.detach().float().clamp(0, 1) * 255).round().byte()


def to_pil(image: Tensor) -> Any:
    """A picture ``[3, H, W]`` in [0, 1] with 8 bits per channel."""
    pixels = eight_bits(image).permute(1, 2, 0).cpu().numpy()
    return extra("PIL.Image").fromarray(pixels)


def cut_square(image: Tensor, size: int) -> Tensor:
    """CLIP's way: the short side is fitted by Pillow, the middle is cut out; ``[3, S, S]``."""
    picture = to_pil(image)
    short = min(picture.size)
    width, height = (int(size * side / short) for side in picture.size)
    fitted = picture.resize((width, height), extra("PIL.Image").Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    square = np.asarray(fitted.crop((left, top, left + size, top + size)))
    return torch.tensor(square).permute(2, 0, 1).float() / 255


def padded_square(image: Tensor, size: int) -> Tensor:
    """HPSv2's way: the long side is fitted, in floating point, and the rest is black;
    ``[3, S, S]``."""
    height, width = image.shape[-2:]
    scale = size / max(height, width)
    fitted = F.interpolate(
        eight_bits(image)[None].float() / 255,
        (round(height * scale), round(width * scale)),
        mode="bicubic",
        antialias=True,
    )[0]
    below, right = size - fitted.shape[-2], size - fitted.shape[-1]
    return F.pad(fitted, (right // 2, right - right // 2, below // 2, below - below // 2))


@dataclass(frozen=True)
class Preprocessing:
    """To squares of `size` pixels, by `padded_square` or `cut_square`."""

    size: int
    padded: bool = False
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __call__(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` in [0, 1] -> ``[B, 3, size, size]`` on the same device."""
        square = padded_square if self.padded else cut_square
        pixels = torch.stack([square(image, self.size) for image in images]).to(images.device)
        mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std
