"""Fixed pairs of pictures: of a dataset with winners and losers, or generated beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_loaders.images.dataset import PictureDataset, PictureOptions, open_pictures
from data_loaders.images.layouts import Row
from model.seam import Samples
from rewards.seam import Reward
from train.preference.fixed_pairs import StoredPairs
from train.preference.pairs import Key
from utils.errors import UserError


@dataclass(frozen=True)
class JudgedPairs(StoredPairs):
    """Pairs that people, or another reward, ranked: rewards ``[B, 2]`` of the better and the worse
    picture, which may disagree."""

    @property
    def best_reward(self) -> Tensor:
        return self.rewards[:, 0]

    @property
    def worst_reward(self) -> Tensor:
        return self.rewards[:, 1]


class PicturePairs:
    """A `train.preference.fixed_pairs.Store`: rows with a better and a worse picture, by the
    picture of the dataset that they belong to and its caption. The reward scores both."""

    def __init__(self, data: PictureDataset, reward: Reward, device: torch.device) -> None:
        self.data, self.reward, self.device = data, reward, device
        self.rows = {(row.key, row.caption): row for row in data.rows if row.loser is not None}

    @staticmethod
    def open(
        options: PictureOptions, path: str, resolution: int, reward: Reward, device: torch.device
    ) -> "PicturePairs":
        """Raises UserError when no row of the folder has two pictures."""
        data = open_pictures(replace(options, data_dir=path), "train", resolution)
        pairs = PicturePairs(data, reward, device)
        if not pairs.rows:
            raise UserError(
                f"--pairs_path {path} has no row with two pictures; use Pick-a-Pic, HPDv2, or "
                "python -m prepare.image_pairs"
            )
        return pairs

    def restrict(self, data: PictureDataset) -> PictureDataset:
        """The pictures and captions that have pairs. Raises UserError when none has."""
        kept = [row for row in data.rows if (row.key, row.caption) in self.rows]
        if not kept:
            raise UserError(f"none of the pairs of {self.data.folder} is of {data.folder}")
        return replace(data, rows=kept)

    def lookup(self, keys: Sequence[Key], like: Samples) -> JudgedPairs:
        """Better and worse pictures and their rewards ``[B, 2]``."""
        rows: list[Row] = [self.rows[key.clip, key.caption] for key in keys]
        captions = [key.caption for key in keys]
        best = Samples(self.data.pixels(rows).to(self.device))
        worst = Samples(self.data.losers(rows).to(self.device))
        scores = [self.reward.score(raw, captions) for raw in (best, worst)]
        return JudgedPairs(best, worst, torch.stack(scores, dim=1))
