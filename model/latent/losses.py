"""Loss of a motion VAE: reconstruction of features and joints, and a weak prior.

Sources: Chen et al., CVPR 2023, section 3.1; Dai et al., "MotionLCM", ECCV 2024, whose masked form
of the reconstruction terms is used: padding counts nothing, and every motion counts the same.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from data_loaders.features import feature_slices, features_to_joints
from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton
from model.distribution import Distribution, kl_divergence


@dataclass(frozen=True)
class VAELossWeights:
    features: float = 1.0
    joints: float = 1.0
    positions: float = 0.0
    kl: float = 1e-4


@dataclass(frozen=True)
class VAELosses:
    """Un-weighted terms and the weighted total, all scalars.

    positions: the joint positions among the features, which MotionLCM calls a velocity loss.
    """

    features: Tensor
    joints: Tensor
    positions: Tensor
    kl: Tensor
    total: Tensor


def vae_losses(
    decoded: Tensor,
    target: Tensor,
    mask: Tensor,
    latents: Distribution,
    stats: Statistics,
    skeleton: Skeleton,
    weights: VAELossWeights = VAELossWeights(),
) -> VAELosses:
    """All terms for motions ``[B, T, D]``, normalised by `stats`, with mask ``[B, T]``.

    A mask that is True everywhere gives MLD's (2023) losses, in which padding counts.
    """
    features = masked_smooth_l1(decoded, target, mask)
    joints = masked_smooth_l1(
        *(features_to_joints(stats.denormalize(x), skeleton).flatten(2) for x in (decoded, target)),
        mask,
    )
    columns = feature_slices(skeleton).positions
    positions = masked_smooth_l1(decoded[..., columns], target[..., columns], mask)
    kl = kl_divergence(latents, latents.standard())
    total = (
        weights.features * features
        + weights.joints * joints
        + weights.positions * positions
        + weights.kl * kl
    )
    return VAELosses(features, joints, positions, kl, total)


def masked_smooth_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over features, then over a motion's valid frames, then over motions: ``[B, T, D]``
    with mask ``[B, T]`` to a scalar."""
    error = F.smooth_l1_loss(prediction, target, reduction="none").mean(dim=-1)
    return ((error * mask).sum(dim=1) / mask.sum(dim=1)).mean()
