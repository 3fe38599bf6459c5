"""TMR as a reward: how well a motion fits a caption, by retrieval."""

from pathlib import Path

import torch
from torch import Tensor

from data_loaders.skeleton import Skeleton
from model.seam import Samples
from rewards.seam import check_width, similarity
from tmr.model import TMR


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
        reward.check(skeleton)
        return reward

    @torch.no_grad()
    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        return similarity(self.embed_texts(captions), self.embed(raw))

    @torch.no_grad()
    def embed(self, raw: Samples) -> Tensor:
        """Latent means ``[B, d]`` of raw motions ``[B, T, D]``."""
        with torch.autocast(self.model.device.type, enabled=False):
            return self.model.encode_motions(raw.x.float(), raw.frames)

    @torch.no_grad()
    def embed_texts(self, captions: list[str]) -> Tensor:
        """Latent means ``[B, d]``."""
        missing = [c for c in dict.fromkeys(captions) if c not in self._texts]
        for start in range(0, len(missing), 256):
            part = missing[start : start + 256]
            with torch.autocast(self.model.device.type, enabled=False):
                self._texts |= dict(zip(part, self.model.encode_texts(part), strict=True))
        return torch.stack([self._texts[caption] for caption in captions])

    def check(self, skeleton: Skeleton | None) -> None:
        check_width(
            "the reward",
            self.model.stats.feature_dim,
            skeleton,
            "TMR's published KIT model was trained on another representation than KIT "
            "text-to-motion uses, so train a reward on this dataset: "
            "python -m train.train_tmr --dataset NAME --save_dir FOLDER",
        )
