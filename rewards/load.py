"""Which reward judges: TMR, the co-embedding evaluators, or a weighted sum of several."""

from dataclasses import dataclass

import torch

from data_loaders.humanml import MotionDataset
from rewards.co_embedding import CoEmbedder, EvaluatorFiles, EvaluatorPaths
from rewards.co_embedding_reward import EvaluatorReward
from rewards.seam import Reward
from rewards.tmr import TMRReward, TMRTextOptions
from rewards.weighted import WeightedReward
from tmr.model import TMR
from utils.errors import UserError
from utils.options import option

KINDS = ("tmr", "evaluator")


@dataclass
class RewardOptions(EvaluatorPaths, TMRTextOptions):
    reward: list[str] = option(["tmr"], "kinds of reward; several are summed", choices=KINDS)
    reward_path: list[str] = option(
        ["models/tmr_humanml3d_guoh3dfeats"], "run folders of the TMR reward models", free="resume"
    )
    reward_weights: list[float] = option(
        [], "their weights, the TMR models' first; none = equal", minimum=0
    )

    def validate(self) -> None:
        count = len(self.reward_path) * ("tmr" in self.reward) + ("evaluator" in self.reward)
        if self.reward_weights and len(self.reward_weights) != count:
            raise UserError(
                f"--reward_weights holds {len(self.reward_weights)} for {count} rewards"
            )
        if self.reward_weights and not sum(self.reward_weights):
            raise UserError("--reward_weights are all zero; give one reward a weight")


def load_reward(options: RewardOptions, device: torch.device, *splits: MotionDataset) -> Reward:
    """The reward of the options, for captions and motions of these splits of one dataset.

    Raises UserError for whatever is missing or reads another number of features.
    """
    folder = splits[0].folder
    rewards: list[Reward] = []
    if "tmr" in options.reward:
        text_encoder = options.reward_text_encoder_path
        rewards += [TMRReward(TMR.load(path, device, text_encoder)) for path in options.reward_path]
    if "evaluator" in options.reward:
        files = EvaluatorFiles.find(
            folder.name, folder.path, options.evaluator_dir, options.glove_dir
        )
        captions = [c for data in splits for entry in data.entries for c in entry.captions]
        tokens = {caption.text: caption.tokens for caption in captions}
        rewards.append(EvaluatorReward(CoEmbedder.load(files, device), tokens))
    for reward in rewards:
        reward.check(folder.skeleton)
    weights = options.reward_weights or [1.0] * len(rewards)
    return rewards[0] if len(rewards) == 1 else WeightedReward(rewards, weights)
