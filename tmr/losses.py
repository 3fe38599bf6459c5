"""TMR's losses (Petrovich et al. 2023, sections 3.2 and 3.3)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.distribution import Distribution, kl_divergence
from tmr.model import TMR


@dataclass(frozen=True)
class LossWeights:
    recons: float = 1.0
    latent: float = 1e-5
    kl: float = 1e-5
    contrastive: float = 0.1
    temperature: float = 0.1


@dataclass(frozen=True)
class TMRLosses:
    """Un-weighted terms and the weighted total, all scalars."""

    recons: Tensor
    kl: Tensor
    latent: Tensor
    contrastive: Tensor
    total: Tensor


def info_nce(
    texts: Tensor, motions: Tensor, temperature: float, exclude: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE of paired latents ``[B, d]``.

    `exclude` ``[B, B]`` marks negatives that mean the same and are left out (diagonal ignored).
    """
    with torch.autocast(texts.device.type, enabled=False):  # 8 bits are too few for close cosines
        scores = F.normalize(texts, dim=-1) @ F.normalize(motions, dim=-1).T / temperature
    if exclude is not None:
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(exclude & ~own, float("-inf"))
    target = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def similar_sentences(sentence_embeddings: Tensor, threshold: float) -> Tensor:
    """Pairs ``[B, B]`` of unit vectors more alike than `threshold` on the [0, 1] scale."""
    return sentence_embeddings @ sentence_embeddings.T > 2 * threshold - 1


def false_negatives(meanings: list[str]) -> Tensor:
    """Pairs ``[B, B]`` with the same meaning, which must not be pushed apart."""
    ids = {meaning: i for i, meaning in enumerate(dict.fromkeys(meanings))}
    codes = torch.tensor([ids[meaning] for meaning in meanings])
    return codes[:, None] == codes[None]


def tmr_losses(
    model: TMR,
    texts: Distribution,
    motions: Distribution,
    target: Tensor,
    mask: Tensor,
    noise: tuple[Tensor, Tensor],
    exclude: Tensor | None,
    weights: LossWeights,
) -> TMRLosses:
    """All terms for normalised motions `target` ``[B, T, D]`` with mask ``[B, T]``.

    `noise` holds the draws ``[B, d]`` of the text and the motion latent. Both latents are decoded
    with the motion's mask; padded frames count, as zero error, in the mean.
    """
    text_latent, motion_latent = texts.sample(noise[0]), motions.sample(noise[1])
    recons = F.smooth_l1_loss(model.motion_decoder(text_latent, mask), target)
    recons = recons + F.smooth_l1_loss(model.motion_decoder(motion_latent, mask), target)
    standard = texts.standard()
    kl = (
        kl_divergence(texts, motions)
        + kl_divergence(motions, texts)
        + kl_divergence(motions, standard)
        + kl_divergence(texts, standard)
    )
    latent = F.smooth_l1_loss(text_latent, motion_latent)
    contrastive = info_nce(text_latent, motion_latent, weights.temperature, exclude)
    total = (
        weights.recons * recons
        + weights.latent * latent
        + weights.kl * kl
        + weights.contrastive * contrastive
    )
    return TMRLosses(recons, kl, latent, contrastive, total)


def tmr_loss(
    model: TMR,
    motions: Tensor,
    lengths: Tensor,
    captions: list[str],
    exclude: Tensor | None,
    weights: LossWeights,
    rng: torch.Generator | None,
) -> TMRLosses:
    """The losses of one batch of raw motions ``[B, T, D]`` and their captions."""
    target, mask = model.normalize(motions, lengths)
    text = model.text_distribution(model.words.encode(captions).to(model.device))
    motion = model.motion_distribution(target, mask)
    shape = text.mean.shape
    noise = [torch.randn(shape, generator=rng, device=model.device) for _ in range(2)]
    return tmr_losses(model, text, motion, target, mask, (noise[0], noise[1]), exclude, weights)
