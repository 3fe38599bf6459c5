"""Short windows of a split's clips, as autoencoders of motion learn from."""

from collections.abc import Iterator

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from data_loaders.humanml import MotionDataset
from data_loaders.normalizer import Statistics
from utils.errors import UserError

AT_ONCE = 512  # windows of a batch that only validates


class Windows:
    """All windows of a split's clips, also of clips too short or too long for other uses.

    Batches are ``[B, frames, D]`` in the space of `stats`. Raises UserError where no clip is as
    long as a window.
    """

    def __init__(
        self, data: MotionDataset, split: str, stats: Statistics, frames: int, stride: int = 1
    ) -> None:
        ids = (data.folder.path / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        spans = [data.packed.spans[i.strip()] for i in ids if i.strip() in data.packed.spans]
        starts = [np.arange(s, s + n - frames + 1, stride) for s, n in spans if n >= frames]
        if not starts:
            raise UserError(f"no clip of split {split} has the {frames} frames of a --window")
        self.starts, self.frames = np.concatenate(starts), frames
        self.rows, self.stats = data.packed.rows, stats

    def __len__(self) -> int:
        return len(self.starts)

    def motion(self, rows: np.ndarray) -> Tensor:
        frames = self.starts[rows][:, None] + np.arange(self.frames)
        return self.stats.normalize(self.rows[torch.from_numpy(frames)])

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        """This process's share of one shuffled pass; the same for the same seed and epoch."""
        state = PartialState()
        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        for batch in range(self.batches_per_epoch(batch_size)):
            first = (batch * state.num_processes + state.process_index) * batch_size
            yield self.motion(order[first : first + batch_size])

    def batches_per_epoch(self, batch_size: int) -> int:
        return len(self) // (batch_size * PartialState().num_processes)

    def check_batch_size(self, name: str, batch_size: int) -> None:
        """Raises UserError where the windows do not fill one batch per process."""
        if self.batches_per_epoch(batch_size) == 0:
            raise UserError(
                f"{name} {batch_size} exceeds the {len(self)} windows of the train split"
            )

    def in_order(self) -> Iterator[Tensor]:
        """All windows, in batches of nearly one size."""
        parts = np.array_split(np.arange(len(self)), -(-len(self) // AT_ONCE))
        return (self.motion(rows) for rows in parts)
