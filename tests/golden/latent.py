"""MLD and MotionLCM: motion VAE, denoiser, sampling, texts and keys, against upstream's numbers."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.features import features_to_joints
from data_loaders.normalizer import Statistics, convert
from data_loaders.skeleton import HUMANML, skeleton_for_dim
from diffusion.gaussian import GaussianDiffusion
from diffusion.samplers import Denoiser, denoiser_of_noise, sample_ddim, sample_lcm
from diffusion.schedule import (
    NoiseSchedule,
    respace,
    scaled_linear_schedule,
    select_offset_stride,
)
from model.distribution import Distribution
from model.latent.denoiser import (
    DenoiserConfig,
    LatentDenoiser,
    guidance_embedding,
    timestep_sinusoid,
)
from model.latent.losses import VAELossWeights, vae_losses
from model.latent.skip_transformer import SkipTransformer
from model.latent.vae import MotionVAE, VAEConfig
from model.text.sentence_vectors import ClipLargeEncoder, SentenceT5Encoder
from model.text.encoders import Condition
from tests.golden.base import Golden, Row, covers

PASS, TRAJECTORY = 2e-5, 1e-3  # absolute, of one pass and of 50 guided steps
