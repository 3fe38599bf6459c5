"""Captions are encoded once; then the text encoders may go."""

from collections.abc import Sequence

import torch

from model.image.condition import ImageCondition
from model.image.pipelines import Wrapper

BATCH = 32  # captions encoded at once


class Prompts:
    """The encoded captions of one pipeline, kept on the CPU."""

    def __init__(self, wrapper: Wrapper) -> None:
        self.wrapper = wrapper
        self.kept: dict[str, ImageCondition] = {}
        self.empty: ImageCondition | None = None

    @torch.no_grad()
    def prepare(self, captions: Sequence[str], drop_encoders: bool = False) -> None:
        """Encode those that are new, and the empty one; then free the encoders if wished."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self.kept]
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            encoded = self.wrapper.encode_text(part).to("cpu")
            self.kept |= {caption: encoded[i : i + 1] for i, caption in enumerate(part)}
        if self.empty is None:
            self.empty = self.wrapper.no_text().to("cpu")
        if drop_encoders:
            self.wrapper.drop_encoders()

    def encode(self, captions: Sequence[str]) -> ImageCondition:
        self.prepare(captions)
        return ImageCondition.cat([self.kept[caption] for caption in captions])

    def no_text(self, size: int) -> ImageCondition:
        """The empty caption `size` times."""
        self.prepare([])
        assert self.empty is not None
        return self.empty.repeat(size)
