"""Generators of latent diffusion from their parts: a checkpoint's, or a trained VAE's with a new
denoiser."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton, skeleton_for_dim
from model.checkpoint_files import load_stats, read_model_args
from model.latent.checkpoints import (
    LatentSettings,
    LatentWeights,
    load_denoiser,
    load_vae,
    read_settings,
    read_weights,
)
from model.latent.denoiser import DenoiserConfig, LatentDenoiser
from model.latent.generator import STUDENT_SAMPLER, MLDGenerator
from model.latent.skip_transformer import SkipTransformerConfig
from model.latent.vae import MotionVAE
from model.single_file import is_single_file
from model.text.encoders import CachedTextEncoder, PooledEncoder, build_text_encoder
from utils.errors import UserError


def build_mld(
    vae: MotionVAE,
    sizes: SkipTransformerConfig,
    settings: LatentSettings,
    stats: Statistics,
    device: torch.device | str,
    text_encoder_path: str = "",
) -> MLDGenerator:
    """A generator around a trained VAE with a new denoiser, which projects where the latents are
    not as wide as it is."""
    encoder = _text_encoder(settings, text_encoder_path, device)
    config = DenoiserConfig(
        **asdict(sizes),
        latent_dim=vae.config.latent_dim,
        text_dim=encoder.width,
        time_dim=encoder.width,
        text_relu=settings.text_relu,
        projected=vae.config.latent_dim != sizes.hidden_dim,
    )
    return _assemble(vae, LatentDenoiser(config), settings, stats, encoder, device)


def assemble(
    vae: MotionVAE,
    model: LatentDenoiser,
    settings: LatentSettings,
    stats: Statistics,
    device: torch.device | str,
    text_encoder_path: str = "",
) -> MLDGenerator:
    """A generator of these networks, with the defaults of their kind.

    Raises UserError when the statistics or the text encoder have another width than the networks.
    """
    encoder = _text_encoder(settings, text_encoder_path, device)
    return _assemble(vae, model, settings, stats, encoder, device)


def _assemble(
    vae: MotionVAE,
    model: LatentDenoiser,
    settings: LatentSettings,
    stats: Statistics,
    encoder: CachedTextEncoder,
    device: torch.device | str,
) -> MLDGenerator:
    skeleton, width = check_statistics(vae, stats), model.config.text_dim
    if encoder.width != width:
        raise UserError(
            f"--text_encoder_type {settings.text_encoder_type} gives vectors {encoder.width} wide, "
            f"this denoiser reads {width}"
        )
    generator = MLDGenerator(
        model.to(device),
        vae.to(device).eval().requires_grad_(False),
        settings,
        stats.to(device),
        encoder,
        skeleton,
        torch.device(device),
    )
    return replace(generator, sampler=STUDENT_SAMPLER) if generator.is_student else generator


def check_statistics(vae: MotionVAE, stats: Statistics) -> Skeleton:
    """The skeleton of a VAE's motions. Raises UserError when the statistics are of another."""
    features = vae.config.num_features
    skeleton = skeleton_for_dim(features)
    if skeleton is None:
        raise UserError(f"no skeleton has {features} features, as this motion VAE takes")
    if stats.feature_dim != features:
        raise UserError(
            f"this motion VAE takes {features} features ({skeleton.name}), the statistics have "
            f"{stats.feature_dim}; pass the --dataset that it was trained on"
        )
    return skeleton


def _text_encoder(
    settings: LatentSettings, path: str, device: torch.device | str
) -> CachedTextEncoder:
    encoder = build_text_encoder(settings.text_encoder_type, path or None, device)
    pool = settings.pooled_text and not encoder.pooled
    return CachedTextEncoder(PooledEncoder(encoder) if pool else encoder)


@dataclass(frozen=True)
class TrainedVAE:
    """A motion VAE as a checkpoint of any stage holds it, in eval mode."""

    vae: MotionVAE
    weights: LatentWeights
    settings: LatentSettings
    stats: Statistics


def read_vae(model_path: Path, data_dir: str = "", use_ema: bool = True) -> TrainedVAE:
    """The statistics come from ``stats.npz`` beside the checkpoint, else from the dataset of its
    number of features. Raises UserError for whatever is missing or does not fit."""
    args = stored_args(model_path)
    weights = read_weights(model_path, use_ema)
    settings = read_settings(weights, args)
    vae = load_vae(weights, settings)
    skeleton = skeleton_for_dim(vae.config.num_features)
    dataset = {"dataset": skeleton.name} if skeleton else {}
    stats = load_stats(model_path, dataset | args, data_dir)
    return TrainedVAE(vae, weights, settings, stats)


def stored_args(model_path: Path) -> dict[str, Any]:
    """Nothing for a published file, whatever its name."""
    described = is_single_file(model_path) or (model_path.parent / "args.json").is_file()
    return read_model_args(model_path) if described else {}


def load_mld(
    model_path: Path, device: torch.device | str, data_dir: str = "", text_encoder_path: str = ""
) -> MLDGenerator:
    """A published or own checkpoint, in eval mode, with its kind's sampler and guidance.

    Raises UserError for whatever is missing or does not fit.
    """
    found = read_vae(model_path, data_dir)
    model = load_denoiser(found.weights, found.settings)
    parts = found.vae, model, found.settings, found.stats
    return assemble(*parts, device, text_encoder_path)
