"""What the trainings on pictures share: shuffled batches, and the VAE's view of every picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState

from data_loaders.images.dataset import PictureDataset, PictureOptions
from data_loaders.images.layouts import Row
from model.image.latents import LatentSpace, Posteriors
from train.task import LoopOptions
from utils.errors import UserError
from utils.options import option, with_default


@dataclass
class ValPicturesOptions:
    """For every script that generates pictures as it validates."""

    val_pictures: int = option(64, "val captions generated per validation", minimum=1)


@dataclass
class SmallPicturesOptions(PictureOptions, LoopOptions):
    """For every script that trains on small pictures from nothing."""

    resolution: int = with_default(32, "width and height in pixels", minimum=8)
    lr: float = with_default(1e-3)
    lr_schedule: str = with_default("cosine")
    warmup_steps: int = with_default(50)
    grad_clip: float = with_default(1.0)
    precision: str = with_default("fp32")


def steps_per_epoch(data: PictureDataset, options: LoopOptions) -> int:
    return len(data) // (options.batch_size * PartialState().num_processes)


def shuffled_rows(data: PictureDataset, options: LoopOptions, epoch: int) -> Iterator[list[Row]]:
    """This process's share of one shuffled pass; the same for the same seed and epoch."""
    state = PartialState()
    rng = torch.Generator().manual_seed((options.seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(len(data), generator=rng).tolist()
    size = options.batch_size
    stop = len(order) - len(order) % (size * state.num_processes)
    for first in range(state.process_index * size, stop, size * state.num_processes):
        yield [data.rows[i] for i in order[first : first + size]]


def check_pictures(data: PictureDataset, options: LoopOptions) -> None:
    """Say what is used. Raises UserError where it does not fill one batch per process."""
    state = PartialState()
    if state.is_main_process:
        print(data.report())
    if steps_per_epoch(data, options) == 0:
        most = len(data) // state.num_processes
        raise UserError(
            f"--batch_size {options.batch_size} x {state.num_processes} processes exceeds the "
            f"{len(data)} pictures of the train split; use --batch_size {most} or less"
        )


class PictureEpochs:
    """The passes of a task over the pictures of `data`."""

    options: Any  # `LoopOptions`, and what the task adds
    data: PictureDataset

    def batches(self, epoch: int) -> Iterator[list[Row]]:
        yield from shuffled_rows(self.data, self.options, epoch)

    def batches_per_epoch(self) -> int:
        return steps_per_epoch(self.data, self.options)


class PosteriorCache:
    """The VAE's posteriors of a dataset's pictures, each computed once and kept on the CPU."""

    def __init__(self, space: LatentSpace, data: PictureDataset, device: torch.device) -> None:
        self.space, self.data, self.device = space, data, device
        self.kept: dict[str, torch.Tensor] = {}

    def __call__(self, rows: Sequence[Row]) -> Posteriors:
        """Of these rows, on the device."""
        new = [row for row in rows if row.key not in self.kept]
        if new:
            found = self.space.posteriors(self.data.pixels(new).to(self.device)).x.cpu()
            self.kept |= {row.key: found[i] for i, row in enumerate(new)}
        return Posteriors(torch.stack([self.kept[row.key] for row in rows]).to(self.device))
