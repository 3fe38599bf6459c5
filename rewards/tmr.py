"""Rewards: a frozen judge of how well a motion fits a caption."""

from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from data_loaders.skeleton import Skeleton
from tmr.model import TMR
from utils.errors import UserError


class Reward(Protocol):
    """Scores raw (un-normalised) motions; it owns its normalisation and its mask."""

    def score(self, motions: Tensor, lengths: Tensor, captions: list[str]) -> Tensor:
        """Rewards ``[B]`` in [0, 1] of motions ``[B, T, D]`` with lengths ``[B]``."""

    def embed_motions(self, motions: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings ``[B, d]``."""


def motion_similarity(a: Tensor, b: Tensor) -> Tensor:
    """(cos + 1) / 2 of paired rows ``[B, d]`` -> ``[B]``."""
    return (F.cosine_similarity(a, b, dim=-1, eps=1e-12) + 1) / 2


class TMRReward:
    """r(x, c) = (cos(text latent, motion latent) + 1) / 2. Texts are embedded once per caption.

    Always in float32, also inside a training step with lower precision: rewards of candidates
    differ in the third decimal.
    """

    def __init__(self, model: TMR) -> None:
        self.model = model.eval().requires_grad_(False)
        self._texts: dict[str, Tensor] = {}

    @staticmethod
    def load(
        run_dir: str | Path, device: torch.device, text_encoder_path: str, skeleton: Skeleton
    ) -> "TMRReward":
        """The TMR in `run_dir`. Raises UserError when it is missing or reads another skeleton."""
        reward = TMRReward(TMR.load(run_dir, device, text_encoder_path))
        reward.check_skeleton(skeleton)
        return reward

    @torch.no_grad()
    def score(self, motions: Tensor, lengths: Tensor, captions: list[str]) -> Tensor:
        texts = self.embed_texts(captions)
        return motion_similarity(texts, self.embed_motions(motions, lengths))

    @torch.no_grad()
    def embed_motions(self, motions: Tensor, lengths: Tensor) -> Tensor:
        """Latent means ``[B, d]``; nothing beyond a length is read."""
        with torch.autocast(self.model.device.type, enabled=False):
            return self.model.encode_motions(motions.float(), lengths)

    @torch.no_grad()
    def embed_texts(self, captions: list[str]) -> Tensor:
        """Latent means ``[B, d]``."""
        missing = [c for c in dict.fromkeys(captions) if c not in self._texts]
        for start in range(0, len(missing), 256):
            part = missing[start : start + 256]
            with torch.autocast(self.model.device.type, enabled=False):
                self._texts |= dict(zip(part, self.model.encode_texts(part), strict=True))
        return torch.stack([self._texts[caption] for caption in captions])

    def check_skeleton(self, skeleton: Skeleton) -> None:
        """Raises UserError when this reward cannot read motions of `skeleton`."""
        if self.model.stats.feature_dim != skeleton.feature_dim:
            raise UserError(
                f"the reward takes {self.model.stats.feature_dim} features, {skeleton.name} "
                f"motions have {skeleton.feature_dim}; TMR's published KIT model was trained on "
                "another representation than KIT text-to-motion uses, so train a reward on this "
                "dataset: python -m train.train_tmr --dataset NAME --save_dir FOLDER"
            )
