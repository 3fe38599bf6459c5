"""From a folder or a name on the hub to a generator of pictures."""

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from model.image.generator import ImageGenerator
from model.image.latents import LatentSpace
from model.image.lora import Adapters, DenoiserLoraOptions, add_lora, load_lora
from model.image.noising import DENSITIES
from model.image.pipelines import WRAPPERS, wrap
from model.image.prompts import Prompts
from utils.devices import DeviceOptions
from utils.errors import UserError
from utils.extras import extra, quiet
from utils.files import read_json
from utils.options import option
from utils.seeding import SeedOptions


@dataclass
class ImageModelOptions:
    """Which model of pictures."""

    model_path: str = option(
        "save/shapes_base/pipeline",
        "folder of a diffusers pipeline, or its name on the hub",
        free="resume",
    )
    density: str = option(
        "auto",
        "noise levels of training in flows; auto = logit_normal for Stable Diffusion 3, uniform "
        "for FLUX",
        choices=("auto", *DENSITIES),
    )


@dataclass
class SamplingOptions:
    """How a finished model is sampled."""

    sampling_steps: int = option(
        0, "denoising steps of the pipeline's own sampler; 0 = as the family is sampled", minimum=0
    )
    guidance: float | None = option(
        None, "guidance scale; none = as the family is sampled", minimum=0
    )


@dataclass
class ImageGeneratorOptions(ImageModelOptions, SamplingOptions, SeedOptions, DeviceOptions):
    """For every script that samples a finished model."""

    batch_size: int = option(32, "pictures generated at once", minimum=1)

    def load_generator(
        self, device: torch.device, dtype: torch.dtype | None = None
    ) -> ImageGenerator:
        """The pipeline, as these options sample from it; raises what the function raises."""
        steps, guidance = self.sampling_steps, self.guidance
        return load_image_generator(self, device, dtype, steps=steps, guidance=guidance)


def load_pipeline(model_path: str, dtype: torch.dtype = torch.float32) -> Any:
    """Raises UserError where there is none, it is of an unknown class, or it may not be read."""
    diffusers = extra("diffusers")
    index = Path(model_path) / "model_index.json"
    if Path(model_path).exists() and not index.is_file():
        raise UserError(
            f"--model_path {model_path} has no model_index.json, so it is no diffusers pipeline"
        )
    if index.is_file():
        content = read_json(index)
        name = content.get("_class_name") if isinstance(content, dict) else None
        if name not in WRAPPERS:
            raise UserError(
                f"--model_path {model_path}: {name} is not one of {', '.join(WRAPPERS)}"
            )
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore", FutureWarning)  # the latest diffusers calls it dtype
            return diffusers.DiffusionPipeline.from_pretrained(model_path, torch_dtype=dtype)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise UserError(refusal(model_path, error)) from None


def refusal(model_path: str, error: Exception) -> str:
    """Why a pipeline was not loaded, in one line."""
    reason = " ".join(str(error).split())[:200]
    if "gated" in reason.lower() or "401" in reason or "403" in reason:
        return (
            f"--model_path {model_path} is gated: accept its licence on the hub, then give your "
            "token with `hf auth login` or HF_TOKEN"
        )
    return f"--model_path {model_path} cannot be loaded ({reason})"


def assemble(pipe: Any, device: torch.device | str, density: str = "auto") -> ImageGenerator:
    """A generator around a pipeline, in eval mode, without adapters.

    Raises UserError for a pipeline of an unknown class.
    """
    wrapper = wrap(pipe)
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.safety_checker = None  # it judges decoded pictures, and the sampler stops at latents
    pipe.to(device)
    wrapper.denoiser.eval().requires_grad_(False)
    if pipe.vae.dtype != torch.float32:
        pipe.vae.to(torch.float32)
    pipe.vae.eval().requires_grad_(False)
    return ImageGenerator(
        wrapper,
        LatentSpace(pipe.vae),
        wrapper.noising(density).to(device),
        Prompts(wrapper),
        torch.device(device),
        adapters=None,
        steps=wrapper.steps,
        guidance=wrapper.guidance,
    )


def load_image_generator(
    options: ImageModelOptions,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    *,
    steps: int = 0,
    guidance: float | None = None,
) -> ImageGenerator:
    """A pipeline ready to sample; dtype: of its weights and its computing, None = float32; steps 0
    and guidance None = as the family is sampled.

    Raises UserError for whatever is missing or does not fit.
    """
    pipe = load_pipeline(options.model_path, dtype or torch.float32)
    generator = assemble(pipe, device, options.density)
    return replace(
        generator,
        autocast=dtype,
        steps=steps or generator.steps,
        guidance=generator.guidance if guidance is None else guidance,
    )


def resolution_of(generator: ImageGenerator, wanted: int) -> int:
    """Pixels along a side: `wanted`, or 0 for those that the model was made for.

    Raises UserError when its latents cannot have that size.
    """
    wrapper = generator.wrapper
    own = int(getattr(wrapper.denoiser.config, "sample_size", 0) or 128) * wrapper.vae_scale
    size = wanted or own
    if size % wrapper.multiple:
        raise UserError(f"--resolution {size} must be a multiple of {wrapper.multiple} here")
    return size


def with_lora(generator: ImageGenerator, path: str) -> ImageGenerator:
    """The generator with the adapters of a file or of a run's folder ("" = none).

    Raises UserError when they are missing or those of another model.
    """
    if path:
        load_lora(generator.wrapper, path)
        generator.adapters = Adapters(generator.model)
    return generator


def with_new_lora(
    generator: ImageGenerator, options: DenoiserLoraOptions, seed: int, checkpointing: bool = False
) -> ImageGenerator:
    """The generator with adapters to train; checkpointing: activations are computed twice instead
    of kept. Raises UserError when no layer has such a name."""
    generator.adapters = add_lora(generator.wrapper, options, seed)
    if checkpointing:
        denoiser: Any = generator.model
        denoiser.enable_gradient_checkpointing()
    return generator
