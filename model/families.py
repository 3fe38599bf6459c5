"""From a checkpoint to its family of generators, and to the generator."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data_loaders.humanml import DataDirOptions
from data_loaders.skeleton import KIT, Skeleton
from diffusion.sampling import SAMPLERS, SamplerChoice, SamplerOptions
from model.checkpoint_files import LIGHTNING, find_checkpoint, read_model_args, run_folder
from model.compiled import CompileOptions
from model.latent.assembly import load_mld
from model.latent.checkpoints import FAMILY as LATENT
from model.latent.generator import GUIDANCE as LATENT_GUIDANCE
from model.latent.generator import MLDGenerator
from model.mdm.generator import GUIDANCE as MDM_GUIDANCE
from model.mdm.generator import MDMGenerator, load_mdm
from model.momask.generator import GUIDANCE as MOMASK_GUIDANCE
from model.momask.generator import KIT_GUIDANCE as MOMASK_KIT_GUIDANCE
from model.momask.generator import MoMaskGenerator, load_momask_generator
from model.momask.options_file import FAMILY as MOMASK
from model.text.encoders import TextEncoderOptions
from utils.devices import DeviceOptions
from utils.errors import UserError
from utils.options import option
from utils.seeding import SeedOptions
from utils.tables import NamesOptions


@dataclass
class ComputeOptions(CompileOptions, DeviceOptions):
    """Where and how a generator computes."""

    precision: str = option("fp32", "number type of the generator", choices=("fp32", "bf16"))

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.precision == "bf16" else None


@dataclass
class GeneratorOptions(DataDirOptions, TextEncoderOptions, ComputeOptions, SeedOptions):
    """For every script that samples from checkpoints."""

    sampler: str | None = option(
        None, "sampling algorithm; none = ancestral for MDM, ddim for MLD", choices=SAMPLERS
    )
    sample_steps: int | None = option(
        None, "denoising steps, 0 = all of the model's; none = all for MDM, 50 for MLD", minimum=0
    )
    guidance_param: float | None = option(
        None,
        "guidance scale, 1 = plain conditional; none = as published: 2.5 for MDM, 7.5 for MLD",
        minimum=0,
    )
    batch_size: int = option(64, "motions generated at once", minimum=1)

    def load_generator(
        self, path: str | Path, device: torch.device, skeleton: Skeleton | None = None
    ) -> "MotionFamily":
        """The checkpoint at `path`, as these options sample from it; raises what the function of
        this name raises."""
        return load_generator(
            path,
            device,
            data_dir=self.data_dir,
            text_encoder_path=self.text_encoder_path,
            sampler=SamplerChoice(self.sampler, self.sample_steps),
            guidance=self.guidance_param,
            autocast=self.autocast,
            compiled=self.compile,
            skeleton=skeleton,
        )


@dataclass
class ModelListOptions(NamesOptions):
    """For every script that compares several checkpoints."""

    model_path: list[str] = option([], "checkpoints to compare", required=True)

    def validate(self) -> None:
        self.check_names(len(self.model_path), "checkpoints")

    def model_names(self) -> list[str]:
        return self.names or [run_folder(Path(path).resolve()).name for path in self.model_path]


MotionFamily = MDMGenerator | MLDGenerator | MoMaskGenerator


def load_generator(
    model_path: str | Path,
    device: torch.device | str = "cpu",
    *,
    data_dir: str = "",
    text_encoder_path: str = "",
    sampler: SamplerOptions | SamplerChoice | None = None,
    guidance: float | None = None,
    autocast: torch.dtype | None = None,
    compiled: bool = False,
    skeleton: Skeleton | None = None,
) -> MotionFamily:
    """A published or own checkpoint, or the best of a run's folder, ready to sample.

    sampler and guidance: None = as the family samples, and what a `SamplerChoice` leaves open as
    well. skeleton: the one that its motions must have. Raises UserError for whatever is missing or
    does not fit.
    """
    path = find_checkpoint(model_path)
    generator: MotionFamily
    if is_momask(path):
        generator = load_momask_generator(path, device, text_encoder_path)
    else:
        load = load_mld if is_latent(path) else load_mdm
        generator = load(path, device, data_dir, text_encoder_path)
    if skeleton is not None and generator.skeleton != skeleton:
        raise UserError(
            f"{path} makes {generator.skeleton.name} motions of "
            f"{generator.skeleton.feature_dim} features, the dataset holds {skeleton.name} motions "
            f"of {skeleton.feature_dim}; pass a matching --dataset"
        )
    if isinstance(sampler, SamplerChoice):
        sampler = sampler.of(generator.sampler)
    chosen = {"sampler": sampler, "guidance": guidance}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    return replace(generator, autocast=autocast, compiled=compiled, **chosen)


def usual_guidance(model_path: str | Path) -> float:
    """The scale at which the family of a checkpoint samples, without reading its weights."""
    path = find_checkpoint(model_path)
    if is_momask(path):
        on_kit = read_model_args(path).get("dataset") == KIT.name
        return MOMASK_KIT_GUIDANCE if on_kit else MOMASK_GUIDANCE
    return LATENT_GUIDANCE if is_latent(path) else MDM_GUIDANCE


def is_latent(path: Path) -> bool:
    """Whether a checkpoint is one of latent diffusion, and not of MDM."""
    return path.suffix == LIGHTNING or read_model_args(path).get("family") == LATENT


def is_momask(path: Path) -> bool:
    """Whether a checkpoint is one of MoMask."""
    return path.suffix != LIGHTNING and read_model_args(path).get("family") == MOMASK
