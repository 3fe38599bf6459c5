"""Sets of motions that are compared: the clips of a split, and what models make of its captions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.humanml import MotionDataset, make_loader, open_dataset
from data_loaders.skeleton import Skeleton
from diffusion.sampling import SAMPLERS, SamplerOptions
from model.checkpoint_files import read_model_args
from model.compiled import COMPILE_HELP
from model.families import load_generator
from model.mdm.generator import MDMGenerator
from model.seam import MotionGenerator, Samples
from utils.devices import DeviceOptions, pick_device
from utils.errors import UserError
from utils.options import option
from utils.seeding import SeedOptions


@dataclass
class SampledOptions(SeedOptions, DeviceOptions):
    """Options of every script that compares several models on the captions of a split."""

    model_path: list[str] = option([], "checkpoints to compare", required=True)
    names: list[str] = option([], "their names in the table; none = the folders' names")
    dataset: str = option("humanml", "humanml, kit, or the name of a folder in dataset/")
    data_dir: str = option("", "dataset folder, where it is not dataset/NAME")
    text_encoder_path: str = option("", "local folder of CLIP or DistilBERT, for the generators")
    split: str = option("val", "val while developing, test for the final table")
    sampler: str = option("ancestral", "of the motions", choices=SAMPLERS)
    sample_steps: int = option(0, "denoising steps; 0 = all", minimum=0)
    guidance_param: float = option(2.5, "guidance scale", minimum=0)
    batch_size: int = option(64, "motions generated at once", minimum=1)
    precision: str = option("fp32", "of the generator", choices=("fp32", "bf16"))
    compile: bool = option(False, COMPILE_HELP)

    def validate(self) -> None:
        if self.names and len(self.names) != len(self.model_path):
            raise UserError(
                f"--names holds {len(self.names)} names for {len(self.model_path)} checkpoints"
            )

    def model_names(self) -> list[str]:
        return self.names or [Path(path).parent.name for path in self.model_path]


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
    return open_dataset(options.dataset, options.split, options.data_dir, random_items=False)


def real_motions(data: MotionDataset, batch_size: int) -> MotionSet:
    """Every clip once, with its first caption and uncropped, in order."""
    motions, lengths, captions, names = [], [], [], []
    for batch in make_loader(data, batch_size, shuffle=False):
        motions.append(batch.motion)
        lengths.append(batch.lengths)
        captions += batch.captions
        names += batch.names
    return MotionSet(_stack(motions), torch.cat(lengths), captions, names)


def load_model(path: str, options: SampledOptions, skeleton: Skeleton) -> MDMGenerator:
    """The checkpoint as a generator. Raises UserError when it makes motions of another skeleton."""
    return load_generator(
        path,
        pick_device(options.device),
        data_dir=options.data_dir,
        text_encoder_path=options.text_encoder_path,
        autocast=torch.bfloat16 if options.precision == "bf16" else None,
        compiled=options.compile,
        sampler=SamplerOptions(options.sampler, options.sample_steps or None),
        guidance=options.guidance_param,
        skeleton=skeleton,
    )


@torch.no_grad()
def generated_motions(
    generator: MotionGenerator, real: MotionSet, options: SampledOptions, name: str
) -> MotionSet:
    """One motion per caption and length of `real`; the noise depends on the seed alone."""
    rng = torch.Generator(generator.device).manual_seed(options.seed)
    motions = []
    for rows in tqdm(torch.arange(len(real.captions)).split(options.batch_size), desc=name):
        like = generator.blank(real.lengths[rows].to(generator.device))
        condition = generator.encode_text([real.captions[i] for i in rows.tolist()])
        motions.append(generator.decode(generator.sample(condition, like, rng)).x.cpu())
    return replace(real, motions=_stack(motions))


def _stack(motions: Sequence[Tensor]) -> Tensor:
    frames = max(m.shape[1] for m in motions)
    pad = torch.nn.functional.pad
    return torch.cat([pad(m, (0, 0, 0, frames - m.shape[1])) for m in motions])
