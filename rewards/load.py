"""Which reward judges: TMR, the co-embedding evaluators, or a weighted sum of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from data_loaders.captions import tag_words
from data_loaders.humanml import UNIT, MotionDataset
from data_loaders.skeleton import Skeleton
from model.mdm.generator import length_mask
from rewards.co_embedding import CoEmbedder, EvaluatorFiles
from rewards.tmr import Reward, TMRReward
from tmr.model import TMR
from utils.errors import UserError
from utils.options import option

KINDS = ("tmr", "evaluator")


class CheckedReward(Reward, Protocol):
    """A reward that can tell whether it reads the motions of a skeleton."""

    def check_skeleton(self, skeleton: Skeleton) -> None:
        """Raises UserError when it cannot."""


@dataclass
class RewardOptions:
    reward: list[str] = option(["tmr"], "kinds of reward; several are summed", choices=KINDS)
    reward_path: list[str] = option(
        ["models/tmr_humanml3d_guoh3dfeats"], "run folders of the TMR reward models"
    )
    reward_text_encoder_path: str = option(
        "", "local folder of DistilBERT, for the TMR models; none = the hub's"
    )
    reward_weights: list[float] = option(
        [], "their weights, the TMR models' first; none = equal", minimum=0
    )
    evaluator_dir: str = option("", "folder of the evaluators, where it is not t2m or kit")
    glove_dir: str = option("", "folder of the word vectors, where it is not glove")

    def validate(self) -> None:
        count = len(self.reward_path) * ("tmr" in self.reward) + ("evaluator" in self.reward)
        if self.reward_weights and len(self.reward_weights) != count:
            raise UserError(
                f"--reward_weights holds {len(self.reward_weights)} for {count} rewards"
            )
        if self.reward_weights and not sum(self.reward_weights):
            raise UserError("--reward_weights are all zero; give one reward a weight")


class EvaluatorReward:
    """r(x, c) = 1 / (1 + ||e_text - e_motion||): the co-embedding distance of Guo et al. (2022),
    brought into (0, 1]; 1 where both embeddings agree, 1/2 at distance 1.

    `tokens`: the ``word/POS`` tokens of the dataset's captions; other captions are tagged. Motions
    are zero beyond their length, as the published figures of ground truth have it.
    """

    def __init__(self, embedder: CoEmbedder, tokens: dict[str, tuple[str, ...]]) -> None:
        self.embedder, self.tokens = embedder, tokens
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def score(self, motions: Tensor, lengths: Tensor, captions: list[str]) -> Tensor:
        texts = self.embed_texts(captions).to(motions.device)
        distance = (texts - self.embed_motions(motions, lengths)).norm(dim=-1)
        return 1 / (1 + distance)

    @torch.no_grad()
    def embed_motions(self, motions: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings ``[B, d]`` of raw motions ``[B, T, D]`` with lengths ``[B]`` of at least 4.

        The convolutions read up to 3 frames after a length: one unit of padding makes them zeros
        for every motion, whatever else is in its batch.
        """
        frames = int(lengths.max())
        normalised = self.embedder.stats.normalize(motions[:, :frames].float())
        padding = ~length_mask(lengths, frames).unsqueeze(-1)
        normalised = F.pad(normalised.masked_fill(padding, 0.0), (0, 0, 0, UNIT))
        with torch.autocast(motions.device.type, enabled=False):
            return self.embedder.embed_motions(normalised, lengths).to(motions.device)

    @torch.no_grad()
    def embed_texts(self, captions: list[str]) -> Tensor:
        """Embeddings ``[B, d]`` on the CPU; each caption is embedded once."""
        missing = [c for c in dict.fromkeys(captions) if c not in self._texts]
        if missing:
            tokens = [self.tokens.get(c) or tuple(tag_words(c)) for c in missing]
            self._texts |= dict(zip(missing, self.embedder.embed_texts(tokens), strict=True))
        return torch.stack([self._texts[caption] for caption in captions])

    def check_skeleton(self, skeleton: Skeleton) -> None:
        """Raises UserError when the evaluators cannot read motions of `skeleton`."""
        width = self.embedder.stats.feature_dim
        if width != skeleton.feature_dim:
            raise UserError(
                f"the evaluators take {width} features, {skeleton.name} motions have "
                f"{skeleton.feature_dim}; pass --evaluator_dir with evaluators of this dataset"
            )


class WeightedReward:
    """Weighted mean of rewards in [0, 1]; the weights need not sum to 1."""

    def __init__(self, rewards: Sequence[CheckedReward], weights: Sequence[float]) -> None:
        self.rewards = tuple(rewards)
        self.weights = tuple(weight / sum(weights) for weight in weights)

    def score(self, motions: Tensor, lengths: Tensor, captions: list[str]) -> Tensor:
        parts = [reward.score(motions, lengths, captions) for reward in self.rewards]
        weighted = [w * part for w, part in zip(self.weights, parts, strict=True)]
        return torch.stack(weighted).sum(dim=0)

    def embed_motions(self, motions: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings ``[B, sum of d]`` whose cosine is the weighted mean of the parts' cosines."""
        parts = [F.normalize(r.embed_motions(motions, lengths), dim=-1) for r in self.rewards]
        return torch.cat([w**0.5 * p for w, p in zip(self.weights, parts, strict=True)], dim=-1)

    def check_skeleton(self, skeleton: Skeleton) -> None:
        for reward in self.rewards:
            reward.check_skeleton(skeleton)


def load_reward(
    options: RewardOptions, device: torch.device, *splits: MotionDataset
) -> CheckedReward:
    """The reward of the options, for captions and motions of these splits of one dataset.

    Raises UserError for whatever is missing or reads another number of features.
    """
    folder = splits[0].folder
    rewards: list[CheckedReward] = []
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
        reward.check_skeleton(folder.skeleton)
    weights = options.reward_weights or [1.0] * len(rewards)
    return rewards[0] if len(rewards) == 1 else WeightedReward(rewards, weights)
