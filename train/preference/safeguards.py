"""Safeguards against losers that win: what keeps the unpreferred term from harming the policy.

Raising the error of a generated motion also raises that of motions that resemble it, and nothing in
Eq. 17 bounds it. docs/results.md says what each option did.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.seam import Generator
from utils.errors import UserError
from utils.options import option

OMEGAS = ("constant", "snr", "relative", "elbo")
SNR_CLIP = 5.0  # gamma of min-SNR weighting (Hang et al. 2023)


@dataclass
class SafeguardOptions:
    loser_min_t: float = option(
        0.0,
        "leave the unpreferred term out below this share of the diffusion steps: with little noise "
        "it only amplifies what the model cannot know",
        minimum=0,
        maximum=1,
    )
    loser_weight: float = option(1.0, "factor of beta in the unpreferred term", minimum=0)
    omega: str = option("constant", "omega_t of the margin, about 1 on average", choices=OMEGAS)
    tau_anchored: bool = option(
        False, "--tau_quantile of the base model's rewards, measured once, not of recent ones"
    )
    candidate_start: float = option(
        1.0,
        "candidates start from the preferred motion noised to this share of the steps, so that "
        "they differ from it only where the policy does; 1 = from noise alone",
        minimum=0,
        maximum=1,
    )


def noisy_enough(t: Tensor, num_steps: int, loser_min_t: float) -> Tensor:
    """Which pairs ``[B]`` with steps t ``[B]`` may have an unpreferred term (after DPO-C&M, Yang et
    al. 2025, which masks and clips timesteps)."""
    return t >= loser_min_t * num_steps


def check_omega(name: str, policy: Generator) -> None:
    """Raises UserError for ``snr`` where the policy's error is not one of x0."""
    if name == "snr" and policy.predicts != "x0":
        raise UserError(
            f"--omega snr turns errors of x0 into errors of the noise, but this model predicts "
            f"{policy.predicts}, whose errors need no such weight; use constant or relative"
        )


def omega_t(name: str, t: Tensor, policy: Generator, reference: Tensor) -> Tensor:
    """Weight ``[B]`` of the margin at levels t ``[B]``.

    ``snr``: clipped signal-to-noise ratio over its mean, which turns errors of x0 into errors of
    the noise; ``relative``: errors in units of the reference's own error ``[B]``. The weight of
    ``elbo``, which depends on the number of hidden tokens, is inside the errors of tokens.
    """
    if name == "snr":
        signal = policy.signal(torch.arange(policy.levels, device=t.device))
        weight = (signal / (1 - signal)).clamp(max=SNR_CLIP)
        return (weight / weight.mean())[t]
    if name == "relative":
        return reference.mean() / reference
    return torch.ones_like(reference)
