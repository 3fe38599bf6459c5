"""TMR as a reward: how well a motion fits a caption, by retrieval."""

from dataclasses import dataclass
from pathlib import Path

import torch

from data_loaders.skeleton import Skeleton
from rewards.retrieval import RetrievalReward
from rewards.seam import check_width
from tmr.model import TMR
from utils.options import option


@dataclass
class TMRTextOptions:
    """For every script that scores with TMR models."""

    reward_text_encoder_path: str = option(
        "", "local folder of DistilBERT, for the TMR models; none = the hub's", free="resume"
    )


@dataclass
class TMRPathOptions:
    """For every script whose reward is one TMR."""

    reward_path: str = option("", "run folder of the training reward")


class TMRReward(RetrievalReward[TMR]):
    """The latents are TMR's means."""

    def __init__(self, model: TMR) -> None:
        super().__init__(model.eval().requires_grad_(False))

    @staticmethod
    def load(
        run_dir: str | Path, device: torch.device, text_encoder_path: str, skeleton: Skeleton
    ) -> "TMRReward":
        """The TMR in `run_dir`. Raises UserError when it is missing or reads another skeleton."""
        reward = TMRReward(TMR.load(run_dir, device, text_encoder_path))
        reward.check(skeleton)
        return reward

    def check(self, skeleton: Skeleton | None) -> None:
        check_width(
            "the reward",
            self.model.stats.feature_dim,
            skeleton,
            "TMR's published KIT model was trained on another representation than KIT "
            "text-to-motion uses, so train a reward on this dataset: "
            "python -m train.train_tmr --dataset NAME --save_dir FOLDER",
        )
