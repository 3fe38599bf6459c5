"""Sampling step by step, with the gradient of the reward through chosen steps.

DDIM without noise (Song et al. 2021, Eq. 12) leads from x_T at index S - 1 to the sample x_0, which
is what index 0 yields. At index i the network predicts D_i, the x0 of x_i with guidance, both
passes of which carry gradient. Three ways to differentiate the reward r of what comes out:

    draft     r(x_0), through networks and sampler of the last K steps; what lies before them is a
              constant (DRaFT-K, Clark et al. 2024; K = S is DRaFT)
    refl      r(D_i) at one index i, whose x_i is a constant (ReFL, Xu et al. 2023)
    easytune  r(D_i) at each of the last K steps, whose x_i is a constant, with an optimiser step
              after each (EasyTune, Tan et al. 2026)
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffusion.gaussian import GaussianDiffusion
from diffusion.samplers import Denoiser, ddim_step

KEPT_NETWORKS = 5  # activations of more networks than these are computed again, not kept


@dataclass(frozen=True)
class Rollout:
    """Sampling of one batch ``[B, ...]``: x0 by the network, and the S steps that are executed."""

    denoise: Denoiser
    diffusion: GaussianDiffusion

    @property
    def steps(self) -> int:
        return self.diffusion.schedule.num_timesteps

    def predict(self, x: Tensor, index: int) -> Tensor:
        """D_i of x at `index`."""
        original = int(self.diffusion.schedule.timestep_map[index])
        return self.denoise(x, torch.full((len(x),), original, device=x.device))

    def advance(self, x: Tensor, x0: Tensor, index: int) -> Tensor:
        """x at ``index - 1``."""
        return ddim_step(self.diffusion, x, x0, index)[0]

    def down_to(self, x: Tensor, index: int) -> Tensor:
        """x at `index`, from x_T and without gradient."""
        with torch.no_grad():
            for i in range(self.steps - 1, index, -1):
                x = self.advance(x, self.predict(x, i), i)
        # The weights that were cast without gradient would serve the next steps in this autocast
        torch.clear_autocast_cache()
        return x

    def draft(self, x: Tensor, last: int) -> Tensor:
        """The sample x_0 from x_T, with gradient through the `last` steps."""
        x = self.down_to(x, last - 1)
        for index in range(last - 1, -1, -1):
            if last > KEPT_NETWORKS:
                x0 = checkpoint(
                    self.predict, x, index, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x0 = self.predict(x, index)
            x = self.advance(x, x0, index)
        return x

    def refl(self, x: Tensor, index: int) -> Tensor:
        """D_i from x_T, with gradient through the network at `index` alone."""
        return self.predict(self.down_to(x, index), index)

    def easytune(self, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """D_i of x at `index`, with gradient through the network; and the next x, without any."""
        x0 = self.predict(x, index)
        return x0, self.advance(x, x0.detach(), index)
