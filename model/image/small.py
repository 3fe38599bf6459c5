"""A small Stable Diffusion pipeline for small pictures, of diffusers' own classes."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from utils.extras import extra
from utils.options import option

PAD, UNKNOWN, START, END = "<pad>", "<unknown>", "<start>", "<end>"
MAX_TOKENS = 16


@dataclass
class SmallModelOptions:
    vae_channels: list[int] = option([16, 32, 48], "channels of the VAE; each halves the picture")
    latent_channels: int = option(4, "channels of a latent", minimum=1)
    unet_channels: list[int] = option([48, 96], "channels of the UNet at each size")
    text_width: int = option(96, "width of the text encoder, a multiple of 32", minimum=32)
    text_layers: int = option(2, "its layers", minimum=1)


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token per word; the end token has the last id, where CLIP text models look for it."""
    tokenizers = extra("tokenizers")
    vocabulary = {word: i for i, word in enumerate([PAD, UNKNOWN, *words, START, END])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = tokenizers.normalizers.Lowercase()
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=MAX_TOKENS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
    )


def text_sizes(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> dict[str, Any]:
    """The text part of a CLIP configuration for this tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "max_position_embeddings": MAX_TOKENS,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def new_vae(options: SmallModelOptions, resolution: int) -> Any:
    blocks = len(options.vae_channels)
    return extra("diffusers").AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=tuple(options.vae_channels),
        layers_per_block=1,
        latent_channels=options.latent_channels,
        norm_num_groups=8,
        sample_size=resolution,
        scaling_factor=1.0,
    )


def new_pipeline(
    options: SmallModelOptions, vae: Any, words: Sequence[str], resolution: int
) -> Any:
    """An untrained UNet that predicts v, and its text encoder, around a trained VAE."""
    d, tokenizer = extra("diffusers"), word_tokenizer(words)
    config = text_sizes(tokenizer, options.text_width, options.text_layers)
    unet = d.UNet2DConditionModel(
        sample_size=resolution // 2 ** (len(options.vae_channels) - 1),
        in_channels=options.latent_channels,
        out_channels=options.latent_channels,
        block_out_channels=tuple(options.unet_channels),
        down_block_types=("CrossAttnDownBlock2D",) * len(options.unet_channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(options.unet_channels),
        layers_per_block=1,
        cross_attention_dim=options.text_width,
        attention_head_dim=4,  # diffusers' name for the number of heads
        norm_num_groups=16,
    )
    scheduler = d.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        steps_offset=1,  # without effect on trailing steps, but diffusers warns of 0
    )
    return d.StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(**config)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def whiten(vae: Any, latents: Tensor) -> None:
    """Give every channel of the latents mean 0 and variance 1, as measured on ``[N, C, h, w]``, by
    the 1 x 1 convolutions around them; pictures come back as before."""
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    before, after = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= std.view(1, -1, 1, 1)
    before.weight[:channels] /= std.view(-1, 1, 1, 1)
    before.bias[:channels] = (before.bias[:channels] - mean) / std
    before.bias[channels:] -= 2 * std.log()  # of the logarithms of variances


def save_pipeline(pipe: Any, networks: nn.ModuleDict, folder: Path) -> Path:
    """Write the pipeline with these networks (``unet``, ``text_encoder``) and return its index; a
    finished folder takes the place of an earlier one."""
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    parts = {**pipe.components, **dict(networks.items())}
    type(pipe)(**parts, requires_safety_checker=False).save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder / "model_index.json"
