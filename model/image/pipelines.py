"""What differs between diffusers' pipelines: how captions, the denoiser and the sampler are called.

A wrapper holds one pipeline. The pipelines do the work; nothing of theirs is written again here.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from model.image.condition import ImageCondition
from model.image.noising import Noising, diffusion_noising, flow_noising
from utils.errors import UserError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
JOINT_ATTENTION = (
    *(f"attn.{name}" for name in ATTENTION),
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
)  # fmt: skip
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")


class Wrapper(ABC):
    """One pipeline.

    guidance, steps: how it is sampled where nobody says otherwise; embedded_guidance: the scale is
    an input of the network, and no empty caption is needed. density: of the levels in training.
    """

    denoiser_name: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]
    guidance: ClassVar[float]
    steps: ClassVar[int]
    density: ClassVar[str] = "uniform"
    embedded_guidance: ClassVar[bool] = False
    encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2", "text_encoder_3")

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        pipe.set_progress_bar_config(disable=True)

    @property
    def denoiser(self) -> nn.Module:
        return getattr(self.pipe, self.denoiser_name)

    @property
    def vae_scale(self) -> int:
        """Pixels per latent along an axis."""
        return int(self.pipe.vae_scale_factor)

    @property
    def multiple(self) -> int:
        """What width and height of a picture must be multiples of, in pixels."""
        return self.vae_scale * int(getattr(self.denoiser.config, "patch_size", 1) or 1)

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def noising(self, density: str) -> Noising:
        """The levels of training; density: of a flow's, ``auto`` = the family's habit."""
        return flow_noising(self.pipe.scheduler, self.density if density == "auto" else density)

    @abstractmethod
    def encode_text(self, captions: list[str]) -> ImageCondition: ...

    def no_text(self) -> ImageCondition:
        """What stands for no caption in classifier-free guidance, one row."""
        return self.encode_text([""])

    @abstractmethod
    def predict(
        self, x: Tensor, times: Tensor, condition: ImageCondition, guidance: float
    ) -> Tensor:
        """The denoiser's output ``[B, C, h, w]`` at latents x ``[B, C, h, w]``."""

    def sample(
        self,
        noise: Tensor,
        condition: ImageCondition,
        empty: ImageCondition | None,
        steps: int,
        guidance: float,
        rng: torch.Generator | None,
        **arguments: Any,
    ) -> Tensor:
        """Latents ``[B, C, h, w]`` from `noise` by the pipeline's own sampler."""
        height, width = (size * self.vae_scale for size in noise.shape[-2:])
        prompts = self.prompts(condition)
        if empty is not None:
            prompts |= {f"negative_{k}": v for k, v in self.prompts(empty).items()}
        latents = self.pipe(
            **prompts,
            latents=self.pack(noise),
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=rng,
            output_type="latent",
            return_dict=False,
            **arguments,
        )[0]
        return self.unpack(latents, noise)

    def prompts(self, condition: ImageCondition) -> dict[str, Tensor]:
        """A condition under the names of the pipeline's arguments."""
        named = {"prompt_embeds": condition.tokens}
        return (
            named
            if condition.pooled is None
            else named | {"pooled_prompt_embeds": condition.pooled}
        )

    def pack(self, latents: Tensor) -> Tensor:
        """As the denoiser reads them."""
        return latents

    def unpack(self, latents: Tensor, like: Tensor) -> Tensor:
        return latents

    def drop_encoders(self) -> None:
        """Free the text encoders, once all captions are encoded."""
        for name in self.encoders:
            if getattr(self.pipe, name, None) is not None:
                setattr(self.pipe, name, None)


class StableDiffusion(Wrapper):
    denoiser_name = "unet"
    lora_targets = ATTENTION
    guidance, steps = 7.5, 50

    def noising(self, density: str) -> Noising:
        return diffusion_noising(self.pipe.scheduler)

    def encode_text(self, captions: list[str]) -> ImageCondition:
        return ImageCondition.of(self.pipe.encode_prompt(captions, self.device, 1, False)[0])

    def predict(
        self, x: Tensor, times: Tensor, condition: ImageCondition, guidance: float
    ) -> Tensor:
        return self.denoiser(x, times, condition.tokens, return_dict=False)[0]


class StableDiffusionXL(StableDiffusion):
    guidance = 5.0

    def encode_text(self, captions: list[str]) -> ImageCondition:
        tokens, _, pooled, _ = self.pipe.encode_prompt(
            captions, device=self.device, do_classifier_free_guidance=False
        )
        return ImageCondition.of(tokens, pooled)

    def no_text(self) -> ImageCondition:
        """Zeros where the pipeline was made so."""
        empty = self.encode_text([""])
        if not self.pipe.config.force_zeros_for_empty_prompt:
            return empty
        assert empty.pooled is not None
        return ImageCondition.of(torch.zeros_like(empty.tokens), torch.zeros_like(empty.pooled))

    def predict(
        self, x: Tensor, times: Tensor, condition: ImageCondition, guidance: float
    ) -> Tensor:
        size = [side * self.vae_scale for side in x.shape[-2:]]
        crop = torch.tensor([*size, 0, 0, *size], device=x.device, dtype=x.dtype)
        added = {"text_embeds": condition.pooled, "time_ids": crop.expand(len(x), -1)}
        return self.denoiser(
            x, times, condition.tokens, added_cond_kwargs=added, return_dict=False
        )[0]


class StableDiffusion3(Wrapper):
    denoiser_name = "transformer"
    lora_targets = JOINT_ATTENTION
    guidance, steps, density = 4.5, 28, "logit_normal"

    def encode_text(self, captions: list[str]) -> ImageCondition:
        tokens, _, pooled, _ = self.pipe.encode_prompt(
            captions, None, None, device=self.device, do_classifier_free_guidance=False
        )
        return ImageCondition.of(tokens, pooled)

    def predict(
        self, x: Tensor, times: Tensor, condition: ImageCondition, guidance: float
    ) -> Tensor:
        return self.denoiser(
            hidden_states=x,
            timestep=times,
            encoder_hidden_states=condition.tokens,
            pooled_projections=condition.pooled,
            return_dict=False,
        )[0]


class Flux(Wrapper):
    """Latents are packed 2 x 2 into tokens; the guidance scale is an input of the network."""

    denoiser_name = "transformer"
    lora_targets = JOINT_ATTENTION + FEED_FORWARD
    guidance, steps = 3.5, 28
    embedded_guidance = True

    @property
    def multiple(self) -> int:
        return 2 * self.vae_scale

    def encode_text(self, captions: list[str]) -> ImageCondition:
        tokens, pooled, _ = self.pipe.encode_prompt(captions, None, device=self.device)
        return ImageCondition.of(tokens, pooled)

    def predict(
        self, x: Tensor, times: Tensor, condition: ImageCondition, guidance: float
    ) -> Tensor:
        scales = torch.full((len(x),), guidance, device=x.device)
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        positions = self.pipe._prepare_latent_image_ids(1, height, width, x.device, x.dtype)
        packed = self.denoiser(
            hidden_states=self.pack(x),
            timestep=times / 1000,
            guidance=scales if self.denoiser.config.guidance_embeds else None,
            pooled_projections=condition.pooled,
            encoder_hidden_states=condition.tokens,
            txt_ids=torch.zeros(condition.tokens.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=positions,
            return_dict=False,
        )[0]
        return self.unpack(packed, x)

    def pack(self, latents: Tensor) -> Tensor:
        return self.pipe._pack_latents(latents, *latents.shape)

    def unpack(self, latents: Tensor, like: Tensor) -> Tensor:
        height, width = (size * self.vae_scale for size in like.shape[-2:])
        return self.pipe._unpack_latents(latents, height, width, self.vae_scale)


WRAPPERS: dict[str, type[Wrapper]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
}


def wrap(pipe: Any) -> Wrapper:
    """Raises UserError for a pipeline of another class."""
    name = type(pipe).__name__
    if name not in WRAPPERS:
        raise UserError(f"{name} is not tuned here; use one of {', '.join(WRAPPERS)}")
    return WRAPPERS[name](pipe)
