"""What the training scripts share about data: options, splits, and one shuffled pass per epoch."""

from collections.abc import Iterator
from dataclasses import dataclass

from accelerate import PartialState

from data_loaders.humanml import MotionBatch, MotionDataset, make_loader, open_dataset
from train.loop import LoopOptions
from utils.errors import UserError
from utils.options import option


@dataclass
class DataOptions(LoopOptions):
    dataset: str = option("humanml", "humanml, kit, or the name of a folder in dataset/")
    data_dir: str = option("", "dataset folder, where it is not dataset/NAME")
    text_encoder_path: str = option("", "local folder of CLIP or DistilBERT")


def open_splits(
    options: DataOptions, phrasings: str = "all"
) -> tuple[MotionDataset, MotionDataset]:
    """Train split with random items, and val split with fixed ones.

    Raises UserError where the train split does not fill one batch per process.
    """
    data = open_dataset(options.dataset, "train", options.data_dir, phrasings=phrasings)
    val_data = open_dataset(options.dataset, "val", options.data_dir, random_items=False)
    if steps_per_epoch(data, options) == 0:
        raise UserError(
            f"--batch_size {options.batch_size} x {PartialState().num_processes} processes exceeds "
            f"the {len(data)} clips of the train split"
        )
    return data, val_data


def steps_per_epoch(data: MotionDataset, options: DataOptions) -> int:
    return len(data) // (options.batch_size * PartialState().num_processes)


def training_batches(
    data: MotionDataset, options: DataOptions, epoch: int, pad_to: int | None = None
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


def fixed_batches(
    data: MotionDataset, batch_size: int, pad_to: int | None = None
) -> Iterator[MotionBatch]:
    """All items in order, for validation."""
    yield from make_loader(data, batch_size, shuffle=False, pad_to=pad_to)
