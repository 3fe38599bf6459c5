"""Pipelines of a few thousand weights of the classes that SDXL, SD3 and FLUX have in diffusers."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from model.image.small import new_vae, text_sizes, word_tokenizer
from tests.model.image.tiny import SIZE, SIZES, WORDS, tiny_pipeline
from utils.extras import extra

WIDTH = SIZES.text_width
HEADS = {"num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2}


def clip_text(tokenizer: PreTrainedTokenizerFast, cls: Any) -> Any:
    config = text_sizes(tokenizer, WIDTH, SIZES.text_layers)
    return cls(CLIPTextConfig(**config, projection_dim=WIDTH)).eval()


def t5_text(tokenizer: PreTrainedTokenizerFast, width: int) -> Any:
    sizes = {"d_model": width, "d_kv": 8, "d_ff": width, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes)).eval()


def flow_scheduler() -> Any:
    return extra("diffusers").FlowMatchEulerDiscreteScheduler(shift=3.0)


def sdxl() -> Any:
    d, tokenizer = extra("diffusers"), word_tokenizer(WORDS)
    time_width = 8
    unet = d.UNet2DConditionModel(
        sample_size=SIZE // 2,
        in_channels=SIZES.latent_channels,
        out_channels=SIZES.latent_channels,
        block_out_channels=tuple(SIZES.unet_channels),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=WIDTH + 6 * time_width,
    )
    return d.StableDiffusionXLPipeline(
        vae=new_vae(SIZES, SIZE),
        text_encoder=clip_text(tokenizer, CLIPTextModel),
        text_encoder_2=clip_text(tokenizer, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=tiny_pipeline().scheduler,
        add_watermarker=False,
    )


def sd3() -> Any:
    d, tokenizer = extra("diffusers"), word_tokenizer(WORDS)
    transformer = d.SD3Transformer2DModel(
        **HEADS,
        sample_size=SIZE // 2,
        patch_size=2,
        in_channels=SIZES.latent_channels,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        out_channels=SIZES.latent_channels,
        pos_embed_max_size=SIZE,
    )
    return d.StableDiffusion3Pipeline(
        vae=new_vae(SIZES, SIZE),
        text_encoder=clip_text(tokenizer, CLIPTextModelWithProjection),
        text_encoder_2=clip_text(tokenizer, CLIPTextModelWithProjection),
        text_encoder_3=t5_text(tokenizer, 2 * WIDTH),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=tokenizer,
        transformer=transformer,
        scheduler=flow_scheduler(),
    )


def flux() -> Any:
    d, tokenizer = extra("diffusers"), word_tokenizer(WORDS)
    transformer = d.FluxTransformer2DModel(
        **HEADS,
        in_channels=4 * SIZES.latent_channels,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 2, 2),
    )
    return d.FluxPipeline(
        vae=new_vae(SIZES, SIZE),
        text_encoder=clip_text(tokenizer, CLIPTextModel),
        text_encoder_2=t5_text(tokenizer, WIDTH),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        transformer=transformer,
        scheduler=flow_scheduler(),
    )


FAMILIES: dict[str, Callable[[], Any]] = {"sdxl": sdxl, "sd3": sd3, "flux": flux}


def family(name: str) -> Any:
    """The pipeline, with the same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FAMILIES[name]()
