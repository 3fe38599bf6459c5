"""Noise schedules of the Gaussian diffusion and their respacing, in float64.

Step t = 0 is the least noisy. The quantities carry their usual names (Ho et al. 2020; Nichol and
Dhariwal 2021 for the cosine schedule).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from utils.errors import UserError
from utils.options import option

SCHEDULES = ("cosine", "linear", "scaled_linear")


@dataclass
class ScheduleOptions:
    """The diffusion of a network."""

    noise_schedule: str = option("cosine", "noise schedule", choices=SCHEDULES)
    diffusion_steps: int = option(1000, "diffusion steps T", minimum=2, maximum=10_000)


@dataclass(frozen=True)
class NoiseSchedule:
    """Betas ``[N]`` in float64 and the original step index ``[N]`` that the network is told.

    ddim_end is the share of signal alpha_bar that DDIM's last step leads to: 1, or less in models
    of the family of Stable Diffusion, whose samples keep a trace of noise.
    """

    betas: Tensor
    timestep_map: Tensor
    ddim_end: float = 1.0

    def __post_init__(self) -> None:
        previous = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        object.__setattr__(self, "_alphas_cumprod_prev", previous)

    @property
    def num_timesteps(self) -> int:
        return len(self.betas)

    @property
    def alphas_cumprod(self) -> Tensor:
        return (1 - self.betas).cumprod(0)

    @property
    def alphas_cumprod_prev(self) -> Tensor:
        return self._alphas_cumprod_prev  # type: ignore[attr-defined]

    @property
    def posterior_variance(self) -> Tensor:
        """Variance of q(x_{t-1} | x_t, x_0); 0 at t = 0."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @property
    def posterior_log_variance(self) -> Tensor:
        """Its logarithm, with entry 0 (the log of 0) replaced by entry 1."""
        variance = self.posterior_variance.clone()
        if self.num_timesteps > 1:
            variance[0] = variance[1]
        return variance.log()

    @property
    def posterior_mean_coef1(self) -> Tensor:
        """Factor of x_0 in the posterior mean."""
        return self.betas * self.alphas_cumprod_prev.sqrt() / (1 - self.alphas_cumprod)

    @property
    def posterior_mean_coef2(self) -> Tensor:
        """Factor of x_t in the posterior mean."""
        alphas = 1 - self.betas
        return (1 - self.alphas_cumprod_prev) * alphas.sqrt() / (1 - self.alphas_cumprod)


def make_schedule(name: str, num_timesteps: int) -> NoiseSchedule:
    """The schedule of this name, one of `SCHEDULES`, over `num_timesteps` steps."""
    scale = 1000 / num_timesteps  # fewer steps are longer ones
    if name == "scaled_linear":
        return scaled_linear_schedule(num_timesteps, 0.00085 * scale, 0.012 * scale)
    if name == "cosine":
        betas = [_cosine_beta(i, num_timesteps) for i in range(num_timesteps)]
        values = torch.tensor(betas, dtype=torch.float64)
    elif name == "linear":
        values = torch.linspace(1e-4 * scale, 0.02 * scale, num_timesteps, dtype=torch.float64)
    else:
        raise UserError(f"--noise_schedule {name} is unknown; choose one of {', '.join(SCHEDULES)}")
    return NoiseSchedule(values, torch.arange(num_timesteps))


def scaled_linear_schedule(num_timesteps: int, first: float, last: float) -> NoiseSchedule:
    """Betas from `first` to `last` whose square roots are evenly spaced (Rombach et al. 2022);
    DDIM ends at alpha_bar_0."""
    roots = torch.linspace(first**0.5, last**0.5, num_timesteps, dtype=torch.float64)
    betas = roots.square()
    return NoiseSchedule(betas, torch.arange(num_timesteps), ddim_end=float(1 - betas[0]))


def _cosine_beta(i: int, num_timesteps: int) -> float:
    def signal(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return min(1 - signal((i + 1) / num_timesteps) / signal(i / num_timesteps), 0.999)


def respace(schedule: NoiseSchedule, timesteps: list[int]) -> NoiseSchedule:
    """Keep the given steps; betas are recomputed so that alphas_cumprod stays the same there."""
    kept = torch.tensor(sorted(timesteps))
    cumulative = schedule.alphas_cumprod[kept]
    previous = torch.cat([torch.ones(1, dtype=torch.float64), cumulative[:-1]])
    return replace(
        schedule, betas=1 - cumulative / previous, timestep_map=schedule.timestep_map[kept]
    )


def half_log_snr(schedule: NoiseSchedule) -> Tensor:
    """lambda_t = log(signal / sigma) ``[N]``, falling with t."""
    cumulative = schedule.alphas_cumprod
    return (cumulative / (1 - cumulative)).log() / 2


def select_by_snr(schedule: NoiseSchedule, count: int) -> list[int]:
    """`count` steps, the first and the last among them, evenly spaced in `half_log_snr`.

    So the solvers in that variable place them (Lu et al. 2022).
    """
    snr = half_log_snr(schedule)
    wanted = torch.linspace(float(snr[0]), float(snr[-1]), count, dtype=snr.dtype)
    nearest = (snr[:, None] - wanted).abs().argmin(dim=0).tolist()
    kept: list[int] = []
    for position, step in enumerate(nearest):
        lowest = kept[-1] + 1 if kept else 0
        kept.append(min(max(step, lowest), schedule.num_timesteps - count + position))
    return kept


def select_timesteps(num_timesteps: int, spacing: str) -> list[int]:
    """Steps kept by a spacing: ``"ddimN"`` (fixed stride) or counts per section, ``"10,15,20"``.

    Raises UserError when the spacing cannot be had from `num_timesteps` steps.
    """
    if spacing.startswith("ddim"):
        return _fixed_stride(num_timesteps, int(spacing[len("ddim") :]))
    counts = [int(count) for count in spacing.split(",")]
    size, rest = divmod(num_timesteps, len(counts))
    steps: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        length = size + (section < rest)
        if count > length:
            raise UserError(f"cannot keep {count} of a section of {length} diffusion steps")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):
            steps.append(start + round(position))
            position += stride  # accumulated, as upstream does, so that ties round alike
        start += length
    return steps


def select_offset_stride(num_timesteps: int, count: int) -> list[int]:
    """`count` steps with the stride T // count, one later than DDIM's own: 1, 21, ... 981 for 50.

    So the samplers of the family of Stable Diffusion place them (a "leading" spacing with an
    offset of 1). With all T steps there is no room for the offset, and it is 0.
    """
    stride = num_timesteps // count
    offset = min(1, num_timesteps - 1 - (count - 1) * stride)
    return [offset + i * stride for i in range(count)]


def select_consistency_steps(num_timesteps: int, count: int, taught: int) -> list[int]:
    """`count` of the `taught` steps that a consistency student was distilled on, from the noisiest.

    The taught ones end every T // taught steps: 19, 39, ... 999 for 50 (Luo et al. 2023). Raises
    UserError when `count` exceeds them.
    """
    if count > taught:
        raise UserError(f"a consistency student of {taught} steps cannot take {count}; lower them")
    steps = [i * (num_timesteps // taught) - 1 for i in range(taught, 0, -1)]
    return sorted(steps[i * taught // count] for i in range(count))


def _fixed_stride(num_timesteps: int, count: int) -> list[int]:
    for stride in range(1, num_timesteps + 1):
        steps = range(0, num_timesteps, stride)
        if len(steps) == count:
            return list(steps)
    raise UserError(f"no fixed stride gives {count} of {num_timesteps} diffusion steps")
