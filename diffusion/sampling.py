"""How a diffusion model is sampled: the algorithm, the executed steps, and where it starts."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion.gaussian import GaussianDiffusion
from diffusion.samplers import (
    Denoiser,
    NoiseSource,
    sample_ancestral,
    sample_ddim,
    sample_dpm,
    sample_lcm,
)
from diffusion.schedule import NoiseSchedule, select_by_snr, select_timesteps
from utils.errors import UserError

SAMPLERS = ("ancestral", "ddim", "dpm", "dpm_sde", "lcm")


@dataclass(frozen=True)
class SamplerOptions:
    """Which of `SAMPLERS`, with how many steps (None = all of the model's), and DDIM's eta."""

    name: str = "ancestral"
    steps: int | None = None
    eta: float = 0.0

    def run(
        self,
        denoise: Denoiser,
        diffusion: GaussianDiffusion,
        x: Tensor,
        noise: NoiseSource,
        start: int | None = None,
    ) -> Tensor:
        """x0 from x_T, or from x at step `start`; ``dpm`` is the deterministic form of the solver,
        ``dpm_sde`` the other; ``lcm`` is for consistency students alone."""
        if self.name == "ancestral":
            return sample_ancestral(denoise, diffusion, x, noise, start=start)
        if self.name == "ddim":
            return sample_ddim(denoise, diffusion, x, noise, start=start, eta=self.eta)
        if self.name in ("dpm", "dpm_sde"):
            return sample_dpm(
                denoise, diffusion, x, noise, start=start, eta=float(self.name == "dpm_sde")
            )
        if self.name == "lcm":
            return sample_lcm(denoise, diffusion, x, noise, start=start)
        raise UserError(f"sampler {self.name} is unknown; use one of {', '.join(SAMPLERS)}")

    def kept_steps(self, schedule: NoiseSchedule) -> list[int]:
        """The executed steps of `schedule`, ascending, the noisiest among them.

        They are evenly spaced in the index or, for the solvers that work in it, in the log-SNR.
        Raises UserError when the schedule has fewer.
        """
        total, steps = schedule.num_timesteps, self.steps or schedule.num_timesteps
        if steps > total:
            raise UserError(f"{steps} sampling steps exceed the model's {total}; lower them")
        if steps == 1:
            return [total - 1]
        if self.name.startswith("dpm"):
            return select_by_snr(schedule, steps)
        return select_timesteps(total, str(steps))


@dataclass(frozen=True)
class SamplerChoice:
    """What a command line chooses of a model's usual `SamplerOptions`, None being its own choice;
    0 steps = all of the model's."""

    name: str | None = None
    steps: int | None = None

    def of(self, usual: SamplerOptions) -> SamplerOptions:
        steps = usual.steps if self.steps is None else self.steps or None
        return replace(usual, name=self.name or usual.name, steps=steps)


@dataclass(frozen=True)
class StartPoint:
    """Sampling that starts from samples ``[B, ...]`` noised to a share of the steps in (0, 1)."""

    x: Tensor
    share: float

    def noised(self, diffusion: GaussianDiffusion, noise: Tensor) -> tuple[int, Tensor]:
        """The first step that is executed and x there; `noise` shaped like the samples."""
        first = max(0, round(self.share * diffusion.schedule.num_timesteps) - 1)
        t = torch.full((len(noise),), first, device=noise.device)
        return first, diffusion.q_sample(self.x, t, noise)
