"""What ReAlign's reward learns from (Weng et al., AAAI 2026): its losses and its noised motions."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.distribution import Distribution, kl_divergence
from rewards.realign_network import RealignNetwork
from tmr.losses import info_nce, similar_sentences


@dataclass(frozen=True)
class RealignLossWeights:
    """threshold: captions more alike than this, on the [0, 1] scale, are no negatives."""

    recons: float = 1.0
    kl: float = 1e-5
    latent: float = 1e-5
    contrastive: float = 0.1
    temperature: float = 0.1
    threshold: float = 0.9


@dataclass(frozen=True)
class RealignLosses:
    """Un-weighted terms and the weighted total.

    recons ``[3]``: text's decoding against the motion, motion's against it, both against each
    other. kl ``[4]``: of text to motion, motion to text, and each to N(0, 1).
    """

    recons: Tensor
    kl: Tensor
    latent: Tensor
    contrastive: Tensor
    total: Tensor


def realign_losses(
    network: RealignNetwork,
    texts: Distribution,
    motions: Distribution,
    target: Tensor,
    mask: Tensor,
    noise: tuple[Tensor, Tensor],
    sentences: Tensor | None,
    weights: RealignLossWeights = RealignLossWeights(),
) -> RealignLosses:
    """All terms for the motions `target` ``[B, T, D]`` that the motion tower saw.

    `noise` holds the draws ``[B, d]`` of the text and of the motion latent; `sentences` ``[B, S]``,
    unit vectors of the captions, filter the negatives. Decoded motions are zero where the mask
    ``[B, T]`` is False; give a target that is zero there too, unless its padding shall count.
    """
    text_latent, motion_latent = texts.sample(noise[0]), motions.sample(noise[1])
    of_text, of_motion = network.decode(text_latent, mask), network.decode(motion_latent, mask)
    pairs = ((of_text, target), (of_motion, target), (of_motion, of_text))
    recons = torch.stack([F.smooth_l1_loss(a, b) for a, b in pairs])
    standard = texts.standard()
    divergences = ((texts, motions), (motions, texts), (motions, standard), (texts, standard))
    kl = torch.stack([kl_divergence(q, p) for q, p in divergences])
    latent = F.smooth_l1_loss(motion_latent, text_latent)
    exclude = None if sentences is None else similar_sentences(sentences, weights.threshold)
    contrastive = info_nce(text_latent, motion_latent, weights.temperature, exclude)
    total = (
        weights.recons * recons.sum()
        + weights.kl * kl.sum()
        + weights.latent * latent
        + weights.contrastive * contrastive
    )
    return RealignLosses(recons, kl, latent, contrastive, total)
