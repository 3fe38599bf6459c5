"""A Stable Diffusion pipeline of a few thousand weights, and a reward that looks at one colour."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from data_loaders.skeleton import Skeleton
from model.image.generator import ImageGenerator
from model.image.load import assemble, with_new_lora
from model.image.lora import DenoiserLoraOptions
from model.image.small import SmallModelOptions, new_pipeline, new_vae
from model.seam import Samples

SIZE = 8  # pixels
SIZES = SmallModelOptions(vae_channels=[8, 8], unet_channels=[16, 16], text_width=32, text_layers=1)
WORDS = ["a", "blue", "circle", "red", "square"]
REDNESS = "tests.model.image.tiny:redness"  # as --reward names it
CAPTIONS = ["a red circle", "a blue square", "a red square", "a blue circle"]


def tiny_pipeline(seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return new_pipeline(SIZES, new_vae(SIZES, SIZE), WORDS, SIZE)


def tiny_generator(seed: int = 0, lora: bool = True) -> ImageGenerator:
    """Two sampling steps with guidance; with new adapters of rank 2."""
    generator = assemble(tiny_pipeline(seed), "cpu")
    generator.steps, generator.guidance = 2, 3.0
    return with_new_lora(generator, DenoiserLoraOptions(lora_rank=2), seed=0) if lora else generator


def disturb(generator: ImageGenerator, size: float = 0.05) -> None:
    """Move every adapter a little."""
    rng = torch.Generator().manual_seed(7)
    assert generator.adapters is not None
    with torch.no_grad():
        for weight in generator.adapters.weights:
            weight += size * torch.randn(weight.shape, generator=rng)


@cache
def pictures(count: int = 4) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


class Redness:
    """Red pictures are good, on a scale of 20 to 30; a `rewards.seam.Reward`."""

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        assert len(raw) == len(captions)
        return 20 + 10 * raw.x[:, 0].mean(dim=(1, 2))

    def embed(self, raw: Samples) -> Tensor:
        return raw.x.mean(dim=(2, 3))

    def check(self, skeleton: Skeleton | None) -> None:
        assert skeleton is None


def redness(device: torch.device) -> Redness:
    return Redness()


class Speechless:
    """Scores, and cannot embed."""

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        return Redness().score(raw, captions)
