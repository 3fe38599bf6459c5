"""Fixed pairs for the batch of `tests.train.fakes`, as files."""

from pathlib import Path

import torch

from data_loaders.skeleton import KIT
from model.seam import Samples
from tests.train.fakes import CAPTIONS, LENGTHS
from train.preference.fixed_pairs import PairIndex, PairKey, shard_path, write_shard
from train.preference.pairs import Candidates

K = 3
REWARDS = torch.tensor([[0.2, 0.9, 0.5], [0.8, 0.1, 0.3], [0.3, 0.4, 0.5], [0.7, 0.6, 0.1]])
EXTRA = 4  # frames by which the stored motions exceed the crops of the batch


def raw_candidates(rows: slice) -> torch.Tensor:
    """Raw motions ``[n, K, T, D]``: the same for the same rows."""
    shape = (len(LENGTHS), K, max(LENGTHS) + EXTRA, KIT.feature_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))[rows]


def write_pairs(folder: Path, batch_size: int = 3, reward: str = "tmr") -> Path:
    """Two files of pairs; every motion is one unit longer than its crop."""
    keys = [
        PairKey(f"{row:06d}", caption, length + EXTRA)
        for row, (caption, length) in enumerate(zip(CAPTIONS, LENGTHS, strict=True))
    ]
    options = {"batch_size": batch_size, "num_candidates": K, "reward": [reward]}
    index = PairIndex("tiny", KIT.feature_dim, options, keys)
    index.write(folder)
    for number, shard in enumerate(index.shards):
        rows = slice(number * batch_size, (number + 1) * batch_size)
        raw = raw_candidates(rows)
        lengths = torch.tensor([key.length for key in shard])
        samples = Samples(raw.flatten(0, 1), lengths.repeat_interleave(K))
        write_shard(shard_path(folder, number), Candidates(samples, samples, REWARDS[rows]))
    return folder
