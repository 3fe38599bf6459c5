"""What fewer steps per candidate do to the choice of the worst of K and to the reward.

Every sampler follows the random path of the full one: the same first noise, and at its steps the
sum of the noise that the left-out steps would have brought (`merge_noise`).
"""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion.samplers import NoiseSource, merge_noise, noise_from
from diffusion.sampling import SamplerOptions
from model.mdm.generator import MDMGenerator
from model.seam import Samples
from rewards.seam import Reward
from train.preference.losses import worst_candidate
from utils.seeding import torch_generator
from utils.tables import markdown_table

STEPS = (30, 20, 10, 5)
COMPARED = ("ancestral", "ddim", "dpm", "dpm_sde")  # lcm is for consistency students


@dataclass(frozen=True)
class FewSteps:
    """One sampler against all ancestral steps in float32.

    agreement: share of captions with the same worst candidate; difference: mean absolute change of
    a candidate's reward; reward and worst: means over all and over the worst candidates.
    """

    sampler: str
    steps: int
    precision: str
    agreement: float
    difference: float
    reward: float
    worst: float
    seconds: float


@dataclass
class StepComparison:
    """K candidates for each of B captions with lengths ``[B]``, always from the same noise."""

    generator: MDMGenerator
    reward: Reward
    captions: list[str]
    lengths: Tensor
    num_candidates: int
    guidance: float = 2.5
    seed: int = 0

    def run(self) -> list[FewSteps]:
        """The exact sampler first, then all its steps in the generator's own precision, then
        fewer."""
        generator, full = self.generator, self.generator.diffusion.schedule.num_timesteps
        self.generator = replace(generator, autocast=None)
        exact, _ = self._rewards(SamplerOptions())  # warms up, too
        rows = [self._compare(SamplerOptions(), exact)]
        self.generator = generator
        settings = [SamplerOptions()] if generator.autocast else []
        settings += [SamplerOptions(name, n) for n in STEPS if n < full for name in COMPARED]
        return rows + [self._compare(setting, exact) for setting in settings]

    def _compare(self, sampler: SamplerOptions, exact: Tensor) -> FewSteps:
        rewards, seconds = self._rewards(sampler)
        same = worst_candidate(rewards) == worst_candidate(exact)
        return FewSteps(
            sampler.name,
            sampler.steps or self.generator.diffusion.schedule.num_timesteps,
            "float32" if self.generator.autocast is None else "bfloat16",
            float(same.float().mean()),
            float((rewards - exact).abs().mean()),
            float(rewards.mean()),
            float(rewards.amin(dim=1).mean()),
            seconds,
        )

    def _rewards(self, sampler: SamplerOptions) -> tuple[Tensor, float]:
        """Rewards ``[B, K]`` and the seconds that sampling took."""
        k, generator = self.num_candidates, self.generator
        lengths = self.lengths.repeat_interleave(k).to(generator.device)
        condition = generator.encode_text(self.captions).repeat_interleave(k)
        start, path = self._noise(sampler, lengths)
        started = time.perf_counter()
        generator = replace(generator, sampler=sampler, guidance=self.guidance)
        motions = generator.draw(condition, lengths, noise=start, step_noise=path)
        raw = generator.decode(Samples(motions, lengths))
        captions = [caption for caption in self.captions for _ in range(k)]
        rewards = self.reward.score(raw, captions).view(-1, k).cpu()
        return rewards, time.perf_counter() - started

    def _noise(self, sampler: SamplerOptions, lengths: Tensor) -> tuple[Tensor, NoiseSource]:
        """x_T and the noise of the sampler's steps; the same path in every call."""
        generator, diffusion = self.generator, self.generator.diffusion
        frames = max(int(lengths.max()), generator.padded_frames or 0)
        rng = torch_generator(self.seed, generator.device)
        shape = (len(lengths), frames, generator.stats.feature_dim)
        start = torch.randn(shape, generator=rng, device=generator.device)
        kept = sampler.kept_steps(diffusion.schedule)
        return start, merge_noise(diffusion, kept, noise_from(rng, start))


def format_few_steps(rows: list[FewSteps]) -> str:
    """A Markdown table; the first row is the exact sampler."""
    header = ["sampler", "steps", "type", "same worst", "change of reward", "reward", "worst"]
    cells = []
    for row in rows:
        setting = [row.sampler, str(row.steps), row.precision]
        figures = [f"{value:.4f}" for value in (row.difference, row.reward, row.worst)]
        speed = f"{rows[0].seconds / row.seconds:.1f}x"
        cells.append([*setting, f"{row.agreement:.0%}", *figures, speed])
    return markdown_table([*header, "speed"], cells)
