"""What the training scripts share about data: options, splits, and one shuffled pass per epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState

from data_loaders.humanml import (
    DatasetOptions,
    MotionBatch,
    MotionDataset,
    make_loader,
    open_dataset,
)
from eval.metrics import POOL
from train.task import LoopOptions
from utils.errors import UserError


@dataclass
class TrainingOptions(LoopOptions, DatasetOptions):
    """Options of every training on a dataset of motions."""


def open_splits(
    options: TrainingOptions, phrasings: str = "all"
) -> tuple[MotionDataset, MotionDataset]:
    """Train split with random items, and val split with fixed ones.

    Raises UserError where the train split does not fill one batch per process.
    """
    data = open_dataset(
        options.dataset,
        "train",
        options.data_dir,
        phrasings=phrasings,
        rebuild_cache=options.rebuild_cache,
    )
    val_data = open_dataset(options.dataset, "val", options.data_dir, random_items=False)
    check_batch_size(data, options)
    return data, val_data


def check_batch_size(data: MotionDataset, options: TrainingOptions) -> None:
    """Raises UserError where the clips do not fill one batch per process."""
    if steps_per_epoch(data, options) == 0:
        processes = PartialState().num_processes
        raise UserError(
            f"--batch_size {options.batch_size} x {processes} processes exceeds the {len(data)} "
            f"clips of the train split; use --batch_size {len(data) // processes} or less"
        )


def validation_pool(val_data: MotionDataset) -> int:
    """Motions per pool of retrieval: 32, or the distinct meanings of the val split where they are
    fewer, after a warning.

    Raises UserError where there is one only, as nothing can then be told apart.
    """
    captions = [entry.captions[0].text for entry in val_data.entries]
    distinct = len(set(val_data.meanings(captions)))
    if distinct < 2:
        raise UserError(
            f"the captions of the val split ({len(val_data)} clips) state one thing, and "
            "validation needs two to tell apart: move names of other clips from train.txt to "
            f"val.txt in {val_data.folder.path}"
        )
    if distinct < POOL and PartialState().is_main_process:
        print(
            f"warning: val split has {distinct} distinct meanings: retrieval in pools of {distinct}"
        )
    return min(POOL, distinct)


def steps_per_epoch(data: MotionDataset, options: TrainingOptions) -> int:
    return len(data) // (options.batch_size * PartialState().num_processes)


def training_batches(
    data: MotionDataset, options: TrainingOptions, epoch: int, pad_to: int | None = None
) -> Iterator[MotionBatch]:
    """This process's share of one shuffled pass; the same for the same seed and epoch."""
    state = PartialState()
    yield from make_loader(
        data,
        options.batch_size,
        shuffle=True,
        seed=options.seed,
        epoch=epoch,
        drop_last=True,
        pad_to=pad_to,
        rank=state.process_index,
        world_size=state.num_processes,
    )


class MotionEpochs:
    """The passes of a task over the clips of `data`, padded to `padded_frames` where they are
    given, else to the longest clip of a batch."""

    options: Any  # `TrainingOptions`, and what the task adds
    data: MotionDataset
    padded_frames: int | None = None

    def batches(self, epoch: int) -> Iterator[MotionBatch]:
        yield from training_batches(self.data, self.options, epoch, self.padded_frames)

    def batches_per_epoch(self) -> int:
        return steps_per_epoch(self.data, self.options)


def fixed_batches(
    data: MotionDataset, batch_size: int, pad_to: int | None = None
) -> Iterator[MotionBatch]:
    """All items in order, for validation."""
    yield from make_loader(data, batch_size, shuffle=False, pad_to=pad_to)
