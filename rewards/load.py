"""Which reward judges: TMR, the evaluators, ReAlign, functions, or a weighted sum."""

from dataclasses import dataclass
from itertools import islice

import torch

from data_loaders.annotations import Annotations
from data_loaders.humanml import MotionDataset, make_loader
from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton
from rewards.co_embedding import CoEmbedder, EvaluatorFiles, EvaluatorPaths
from rewards.co_embedding_reward import EvaluatorReward
from rewards.functions import NAMES, FunctionReward, find_function
from rewards.realign import RealignOptions, RealignReward, measure_steps
from rewards.seam import Reward
from rewards.tmr import TMRReward, TMRTextOptions
from rewards.weighted import RewardListOptions, WeightedReward
from tmr.model import TMR
from tmr.retrieval import SMALLEST_POOL
from utils.errors import UserError
from utils.options import with_default

MODELS = ("tmr", "evaluator", "realign")
KINDS = (*MODELS, *NAMES)
MEASURED = 512  # motions on which a reward of ReAlign shows what it should be told


@dataclass
class RewardOptions(EvaluatorPaths, TMRTextOptions, RealignOptions, RewardListOptions):
    reward: list[str] = with_default(
        ["tmr"],
        f"kinds of reward ({', '.join(KINDS)}) or module:function (docs/rewards.md); several "
        "are summed",
    )
    reward_path: list[str] = with_default(
        ["models/tmr_humanml3d_guoh3dfeats"], "run folders of the TMR reward models"
    )
    reward_weights: list[float] = with_default(
        [], "their weights: TMR models, evaluators, ReAlign, the rest; none = equal"
    )

    def validate(self) -> None:
        self.check_kinds(KINDS)
        if "tmr" in self.reward and not self.reward_path:
            raise UserError("--reward_path is required for --reward tmr: the TMR's run folder")
        others = len({"evaluator", "realign"} & set(self.reward)) + len(self.functions)
        self.check_weights(len(self.reward_path) * ("tmr" in self.reward) + others)
        if "realign" in self.reward and not self.realign_path:
            raise UserError(
                "--reward realign needs --realign_path FILE; python -m train.train_reward makes one"
            )

    @property
    def functions(self) -> list[str]:
        """The rewards that are no models."""
        return [name for name in self.reward if name not in MODELS]


def load_reward(options: RewardOptions, device: torch.device, *splits: MotionDataset) -> Reward:
    """The reward of the options, for captions and motions of these splits of one dataset.

    Raises UserError for whatever is missing or reads another number of features.
    """
    folder = splits[0].folder
    rewards = tmr_models(options, device)
    if "evaluator" in options.reward:
        files = EvaluatorFiles.find(
            folder.name, folder.path, options.evaluator_dir, options.glove_dir
        )
        captions = [c for data in splits for entry in data.entries for c in entry.captions]
        tokens = {caption.text: caption.tokens for caption in captions}
        rewards.append(EvaluatorReward(CoEmbedder.load(files, device), tokens))
    if "realign" in options.reward:
        rewards.append(load_realign(options, device, splits[-1]))
    first = splits[0]
    rewards += functions_of(options, folder.skeleton, first.annotations, first.stats)
    return combine(rewards, options, folder.skeleton)


def load_reward_without_data(
    options: RewardOptions, device: torch.device, skeleton: Skeleton
) -> Reward:
    """The reward for motions of prompts that no dataset holds. Raises UserError as `load_reward`
    does, and for what needs a dataset."""
    for kind in ("evaluator", "realign"):
        if kind in options.reward:
            raise UserError(f"--reward {kind} needs a dataset; name it with --dataset")
    rewards = tmr_models(options, device)
    rewards += functions_of(options, skeleton)
    return combine(rewards, options, skeleton)


def tmr_models(options: RewardOptions, device: torch.device) -> list[Reward]:
    paths = options.reward_path if "tmr" in options.reward else []
    text_encoder = options.reward_text_encoder_path
    return [TMRReward(TMR.load(path, device, text_encoder)) for path in paths]


def functions_of(
    options: RewardOptions,
    skeleton: Skeleton,
    notes: Annotations | None = None,
    stats: Statistics | None = None,
) -> list[Reward]:
    return [
        FunctionReward(name, find_function(name, skeleton, notes), skeleton, stats)
        for name in options.functions
    ]


def combine(rewards: list[Reward], options: RewardOptions, skeleton: Skeleton) -> Reward:
    """Their weighted sum. Raises UserError for one that reads other motions."""
    for reward in rewards:
        reward.check(skeleton)
    weights = options.reward_weights or [1.0] * len(rewards)
    return rewards[0] if len(rewards) == 1 else WeightedReward(rewards, weights)


def load_realign(
    options: RewardOptions, device: torch.device, data: MotionDataset
) -> RealignReward:
    """ReAlign's reward in the statistics of `data`, on whose motions it is measured with and
    without step, as a wrong choice is silent otherwise. Raises UserError for what does not fit."""
    reward = RealignReward.load(
        options.realign_path,
        data.stats,
        device,
        options.realign_text_encoder_path,
        options.reward_mode,
        options.reward_step,
    )
    frames = data.skeleton.max_length
    batches = make_loader(data, min(64, len(data)), shuffle=True, pad_to=frames)
    chosen = list(islice(batches, MEASURED // 64))
    captions = [caption for batch in chosen for caption in batch.captions]
    if len(set(captions)) < SMALLEST_POOL:
        return reward
    motions = torch.cat([batch.motion for batch in chosen])
    found = measure_steps(reward, motions, torch.cat([b.lengths for b in chosen]), captions)
    print(
        f"reward of ReAlign ({reward.model.mode.name}): R@1 of {len(captions)} real motions "
        f"{found.clean:.3f} told step 0, {found.none:.3f} told none"
    )
    return reward
