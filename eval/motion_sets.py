"""Sets of motions that are compared: the clips of a split, and what models make of its captions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.features import features_to_joints
from data_loaders.humanml import MotionDataset, SplitDatasetOptions, make_loader, open_dataset
from data_loaders.skeleton import Skeleton
from model.checkpoint_files import read_model_args
from model.families import GeneratorOptions, ModelListOptions, MotionFamily
from model.seam import MotionGenerator, Samples
from utils.devices import pick_device
from utils.errors import UserError
from utils.files import write_json
from utils.options import option
from utils.provenance import provenance


@dataclass
class SampledOptions(ModelListOptions, GeneratorOptions, SplitDatasetOptions):
    """Options of every script that compares several models on the captions of a split."""


@dataclass
class FiguresFile:
    """For every script whose figures may be kept."""

    output: str = option("", "JSON file for the figures; none = print only", free="always")

    def write(self, figures: dict[str, Any]) -> None:
        """The figures, with where they come from, where a file was named."""
        if self.output:
            write_json(self.output, figures | {"provenance": provenance()})


@dataclass(frozen=True)
class MotionSet:
    """Raw motions ``[N, T, D]`` (zero beyond the length), lengths ``[N]``, captions, clip ids."""

    motions: Tensor
    lengths: Tensor
    captions: list[str]
    names: list[str]

    @property
    def samples(self) -> Samples:
        return Samples(self.motions, self.lengths)

    def with_motions(self, parts: Sequence[Samples]) -> "MotionSet":
        """The same captions with other raw motions, given in batches."""
        lengths = torch.cat([part.frames for part in parts])
        return replace(self, motions=_stack([part.x for part in parts]), lengths=lengths)

    def rows(self, keep: Tensor) -> "MotionSet":
        index = keep.tolist()
        captions, names = [self.captions[i] for i in index], [self.names[i] for i in index]
        return MotionSet(self.motions[keep], self.lengths[keep], captions, names)

    def finite(self) -> Tensor:
        """Which motions ``[N]`` hold neither NaN nor infinity. Raises UserError when none does."""
        finite = self.motions.isfinite().flatten(1).all(dim=1)
        if not finite.any():
            raise UserError("every generated motion holds NaN or infinity: the model has diverged")
        return finite


def open_split(options: SampledOptions) -> MotionDataset:
    """The split, item by item, once every checkpoint has been found. Raises UserError."""
    for path in options.model_path:
        read_model_args(path)
    return open_dataset(
        options.dataset,
        options.split,
        options.data_dir,
        random_items=False,
        rebuild_cache=options.rebuild_cache,
    )


def real_motions(data: MotionDataset, batch_size: int) -> MotionSet:
    """Every clip once, with its first caption and uncropped, in order."""
    motions, lengths, captions, names = [], [], [], []
    for batch in make_loader(data, batch_size, shuffle=False):
        motions.append(batch.motion)
        lengths.append(batch.lengths)
        captions += batch.captions
        names += batch.names
    return MotionSet(_stack(motions), torch.cat(lengths), captions, names)


def load_model(path: str, options: SampledOptions, skeleton: Skeleton) -> MotionFamily:
    """The checkpoint as a generator. Raises UserError when it makes motions of another skeleton."""
    return options.load_generator(path, pick_device(options.device), skeleton)


@torch.no_grad()
def generated_motions(
    generator: MotionGenerator, real: MotionSet, options: SampledOptions, name: str
) -> MotionSet:
    """One motion per caption and length of `real`; the noise depends on the seed alone.

    Where a generator makes whole tokens only, lengths are up to a token shorter.
    """
    rng = torch.Generator(generator.device).manual_seed(options.seed)
    parts = []
    for rows in tqdm(torch.arange(len(real.captions)).split(options.batch_size), desc=name):
        like = generator.blank(real.lengths[rows].to(generator.device))
        condition = generator.encode_text([real.captions[i] for i in rows.tolist()])
        parts.append(generator.decode(generator.sample(condition, like, rng)).to("cpu"))
    return real.with_motions(parts)


@torch.no_grad()
def coded_motions(generator: MotionGenerator, real: MotionSet, batch_size: int) -> MotionSet:
    """`real` after the generator's code and back; a code of whole tokens may cut a few frames."""
    rng = torch.Generator(generator.device).manual_seed(0)  # of a VAE's posterior
    parts = []
    for rows in torch.arange(len(real.captions)).split(batch_size):
        raw = Samples(real.motions[rows], real.lengths[rows]).to(generator.device)
        parts.append(generator.decode(generator.encode(raw, rng)).to("cpu"))
    return real.with_motions(parts)


def joint_error(motions: MotionSet, real: MotionSet, skeleton: Skeleton) -> float:
    """Mean distance of joints in metres, over the frames that both have of each motion."""
    rows = zip(motions.motions, real.motions, motions.lengths, real.lengths, strict=True)
    errors = []
    for motion, other, *lengths in rows:
        frames = int(min(lengths))
        made, meant = (features_to_joints(m[:frames], skeleton) for m in (motion, other))
        errors.append((made - meant).norm(dim=-1).mean())
    return float(torch.stack(errors).mean()) / skeleton.units_per_metre


def _stack(motions: Sequence[Tensor]) -> Tensor:
    frames = max(m.shape[1] for m in motions)
    pad = torch.nn.functional.pad
    return torch.cat([pad(m, (0, 0, 0, frames - m.shape[1])) for m in motions])
