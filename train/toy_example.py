"""The two-dimensional example of the paper's Fig. 3, on the losses and pairs of the real training.

    python -m train.toy_example --save_dir save/toy

The base generator is a diffusion model whose samples follow a Gaussian of mean [-2, 1] and
covariance diag(2, 2): its denoiser is the exact one of that Gaussian plus a small network that
starts at zero, so no pretraining error enters. The reward is the density of two Gaussian modes,
one near the base and one far from it. Offline data: preferred points are drawn from the reward
density, unpreferred points from a Gaussian elsewhere. Every method starts from the same base and
takes the same number of steps at the same rate; a "motion" here has one frame and two features.

Writes toy_example.png (densities of the first seed over the reward) and toy_example.json: for every
method the mean reward, the mass in the far mode, and KL(reward density || generated density), with
95 % Student-t intervals over the seeds. Rows to compare with: the untouched base, plain denoising
of the preferred points (sft), and points of the reward density itself.
"""

from utils.start import entry_point

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton
from diffusion.gaussian import GaussianDiffusion, masked_mse
from diffusion.samplers import noise_from, sample_ancestral
from diffusion.schedule import make_schedule
from model.seam import Samples
from model.text.encoders import Condition
from train.preference.algorithm import PreferenceAlgorithm
from train.preference.fixed_pairs import StoredPairs
from train.preference.methods import METHODS
from train.preference.options import PairedOptions, PreferenceOptions
from train.preference.pairs import Key
from utils.errors import UserError
from utils.extras import extra
from utils.files import atomic_write, prepare_output_dir, write_json
from utils.intervals import mean_and_interval
from utils.options import option, parse_options, with_default
from utils.outputs import OverwriteOptions
from utils.positions import sinusoidal_table
from utils.provenance import provenance
from utils.seeding import SeedOptions
from utils.tables import markdown_table

BASE_MEAN, BASE_VARIANCE = (-2.0, 1.0), 2.0  # the paper's generator
NEAR_MODE, FAR_MODE, MODE_STD = (-1.0, 2.0), (3.0, -2.0), 0.8  # the reward's modes, equally high
UNPREFERRED_MEAN, UNPREFERRED_STD = (2.0, 4.0), 1.0  # offline data, unlike the reward
DIFFUSION_STEPS = 20
GRID = torch.linspace(-8.0, 8.0, 161)  # per axis
BANDWIDTH = 0.25  # of the kernel density estimates
METHODS_HERE = tuple(name for name in METHODS if not name.startswith("modipo"))


@dataclass
class Options(PairedOptions, SeedOptions, OverwriteOptions):
    save_dir: str = option("save/toy_example", "folder of figure and numbers")
    methods: list[str] = option(
        ["offline_dpo", "online_dpo", "sopo", "sft"], "methods to run", choices=METHODS_HERE
    )
    seed: int = with_default(10, "first seed")
    num_seeds: int = option(10, "seeds, counted from the first", minimum=1)
    num_steps: int = option(300, "optimiser steps", minimum=1)
    batch_size: int = option(128, "pairs per step", minimum=1)
    lr: float = option(1e-3, "learning rate of AdamW", minimum=0)
    tau: float = option(0.45, "of the gated methods; rewards lie in [0, 1]", minimum=0, maximum=1)
    beta: float = option(1.0, "weight of the implicit reward", minimum=0)
    offline_points: int = option(2048, "preferred and unpreferred points each", minimum=1)
    num_samples: int = option(4000, "points that measure a method", minimum=2)


class TwoModes:
    """The reward: density of two Gaussians of equal weight, 1 at its height; a `Reward`."""

    means = torch.tensor([NEAR_MODE, FAR_MODE])

    def density(self, points: Tensor, extra_variance: float = 0.0) -> Tensor:
        """Probability density of points ``[..., 2]``, smoothed by a Gaussian kernel if asked."""
        variance = MODE_STD**2 + extra_variance
        squares = (points.unsqueeze(-2) - self.means).square().sum(-1)
        return (-squares / (2 * variance)).exp().mean(-1) / (2 * math.pi * variance)

    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        """``[B, 1, 2]`` -> ``[B]`` in [0, 1]."""
        return self.density(raw.x[:, 0]) / self.density(self.means).max()

    def embed(self, raw: Samples) -> Tensor:
        return raw.x.flatten(1)

    def check(self, skeleton: Skeleton | None) -> None:
        """It reads any points."""

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Points ``[N, 2]`` of the density."""
        modes = torch.randint(2, (count,), generator=rng)
        return self.means[modes] + MODE_STD * torch.randn(count, 2, generator=rng)


class ToyDenoiser(nn.Module):
    """x0 from x_t ``[B, 1, 2]``: E[x0 | x_t] of a standard normal, plus a network.

    For x0 ~ N(0, 1) that expectation is sqrt(abar_t) x_t. The network's last layer starts at zero.
    """

    def __init__(self, signal: Tensor, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("signal", signal.float())
        self.register_buffer("times", sinusoidal_table(len(signal), 16))
        self.net = nn.Sequential(
            *(nn.Linear(2 + 16, width), nn.SiLU()),
            *(nn.Linear(width, width), nn.SiLU()),
            nn.Linear(width, 2),
        )
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        inputs = torch.cat([x_t, self.times[t].unsqueeze(1)], dim=-1)
        return self.signal[t].view(-1, 1, 1) * x_t + self.net(inputs)


@dataclass
class ToyGenerator:
    """A `Generator` of points; captions mean nothing to it.

    Its normalised base is standard normal, for which ancestral sampling with the forward variance
    is exact down to the last step: points then have variance (1 - beta_0) times the stated one.
    """

    model: ToyDenoiser
    diffusion: GaussianDiffusion
    stats: Statistics
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    levels: int = DIFFUSION_STEPS
    skeleton: Skeleton | None = None
    padded_frames: int | None = None
    predicts: str = "x0"
    usual_candidates: int = 4

    @staticmethod
    def base(seed: int) -> "ToyGenerator":
        torch.manual_seed(seed)
        diffusion = GaussianDiffusion(make_schedule("cosine", DIFFUSION_STEPS), sigma_small=False)
        std = torch.full((2,), BASE_VARIANCE**0.5)
        stats = Statistics("dataset_stats", torch.tensor(BASE_MEAN), std)
        return ToyGenerator(ToyDenoiser(diffusion.tables["signal"]), diffusion, stats)

    def frozen(self) -> "ToyGenerator":
        return replace(self, model=copy.deepcopy(self.model).requires_grad_(False))

    def encode_text(self, captions: list[str]) -> Condition:
        return Condition(torch.zeros(len(captions), 1, 1), torch.ones(len(captions), 1).bool())

    def encode(self, raw: Samples, rng: torch.Generator | None = None) -> Samples:
        return Samples(self.stats.normalize(raw.x), raw.lengths)

    def decode(self, samples: Samples) -> Samples:
        return Samples(self.stats.denormalize(samples.x), samples.lengths)

    def noise(self, samples: Samples, rng: torch.Generator | None) -> Tensor:
        return torch.randn(samples.x.shape, generator=rng)

    def error(self, samples: Samples, t: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        x0 = self.model(self.diffusion.q_sample(samples.x, t, noise), t)
        return masked_mse(x0, samples.x, samples.mask)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        like: Samples,
        rng: torch.Generator | None,
        start: float = 1.0,
    ) -> Samples:
        if start < 1:
            raise ValueError("the points of this example are sampled from noise alone")
        x = torch.randn(like.x.shape, generator=rng)
        x = sample_ancestral(self.model, self.diffusion, x, noise_from(rng, x))
        return Samples(x, like.lengths)

    def signal(self, t: Tensor) -> Tensor:
        return self.diffusion.schedule.alphas_cumprod.float()[t]

    def save(
        self, folder: Path, step: int, average: nn.Module | None, args: dict[str, Any]
    ) -> Path:
        raise NotImplementedError("the points of this example are drawn, not kept")

    def points(self, count: int, rng: torch.Generator) -> Tensor:
        """Raw points ``[N, 2]``."""
        like = Samples(torch.zeros(count, 1, 2), torch.ones(count).long())
        return self.decode(self.sample(self.encode_text([""] * count), like, rng)).x[:, 0]


@dataclass
class OfflineData:
    """Preferred and unpreferred points ``[N, 2]``; also the store of fixed pairs."""

    preferred: Tensor
    unpreferred: Tensor
    reward: TwoModes

    @staticmethod
    def draw(count: int, rng: torch.Generator) -> "OfflineData":
        reward = TwoModes()
        spread = UNPREFERRED_STD * torch.randn(count, 2, generator=rng)
        unpreferred = torch.tensor(UNPREFERRED_MEAN) + spread
        return OfflineData(reward.sample(count, rng), unpreferred, reward)

    def batch(self, size: int, rng: torch.Generator) -> tuple[Samples, list[Key]]:
        """Preferred points, named by their row."""
        rows = torch.randint(len(self.preferred), (size,), generator=rng)
        return _points(self.preferred[rows]), [Key(str(row), "") for row in rows.tolist()]

    def lookup(self, keys: Sequence[Key], like: Samples) -> StoredPairs:
        rows = [int(key.clip) for key in keys]
        best, worst = _points(self.preferred[rows]), _points(self.unpreferred[rows])
        scores = [self.reward.score(points, []) for points in (best, worst)]
        return StoredPairs(best, worst, torch.stack(scores, dim=1))


def _points(points: Tensor) -> Samples:
    """Points ``[N, 2]`` as motions of one frame."""
    return Samples(points.unsqueeze(1), torch.ones(len(points)).long())


def tune(
    method: str, base: ToyGenerator, data: OfflineData, options: Options, seed: int
) -> ToyGenerator:
    """The generator after ``options.num_steps`` steps of `method` from `base`."""
    settings = PreferenceOptions(
        method=method,
        num_candidates=options.num_candidates,
        tau=options.tau,
        beta=options.beta,
        similarity_space="features",
    )
    policy = replace(base, model=copy.deepcopy(base.model))
    algorithm = PreferenceAlgorithm(settings, policy, data.reward, data)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=options.lr, weight_decay=0.0)
    rng = torch.Generator().manual_seed(seed)
    for step in range(options.num_steps):
        loss = algorithm.step(*data.batch(options.batch_size, rng), rng).loss.mean()
        if not loss.isfinite():
            raise UserError(f"{method} diverged at step {step}; lower --lr or --beta")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy


@dataclass(frozen=True)
class Figures:
    """`far_mass`: share of points within two deviations of the far mode; `kl` in nats."""

    reward: float
    far_mass: float
    kl: float


def kernel_density(points: Tensor) -> Tensor:
    """Gaussian kernel density estimate of ``[N, 2]`` on the grid ``[161, 161]`` (x, y)."""
    kernels = [
        (-(GRID - points[:, axis, None]).square() / (2 * BANDWIDTH**2)).exp() for axis in (0, 1)
    ]
    return kernels[0].T @ kernels[1] / (len(points) * 2 * math.pi * BANDWIDTH**2)


def grid_points() -> Tensor:
    """``[161, 161, 2]``"""
    return torch.cartesian_prod(GRID, GRID).view(len(GRID), len(GRID), 2)


def kl_to_reward(points: Tensor, reward: TwoModes) -> float:
    """KL(reward density || density of the points), both smoothed by the same kernel.

    It grows where the reward has mass and the points have none. A share of 0.001 of uniform mass
    in the estimate keeps it finite.
    """
    target = reward.density(grid_points(), BANDWIDTH**2)
    target = target / target.sum()
    found = kernel_density(points)
    found = 0.999 * found / found.sum() + 0.001 / found.numel()
    return float((target * (target.clamp(min=1e-30) / found).log()).sum())


def measure(points: Tensor, reward: TwoModes) -> Figures:
    """Figures of points ``[N, 2]``."""
    far = (points - torch.tensor(FAR_MODE)).norm(dim=-1) < 2 * MODE_STD
    scores = reward.score(_points(points), [])
    return Figures(float(scores.mean()), float(far.float().mean()), kl_to_reward(points, reward))


def run_seed(options: Options, seed: int, progress: tqdm) -> dict[str, Tensor]:
    """Name -> points ``[N, 2]`` of the base, of every method, and of the reward density."""
    rng = torch.Generator().manual_seed(seed)
    base, data = ToyGenerator.base(seed), OfflineData.draw(options.offline_points, rng)
    points = {"base": base.points(options.num_samples, rng)}
    for method in options.methods:
        policy = tune(method, base, data, options, seed)
        points[method] = policy.points(options.num_samples, rng)
        progress.update()
    return points | {"reward density": data.reward.sample(options.num_samples, rng)}


def summarize(rows: dict[str, list[Figures]]) -> dict[str, dict[str, dict[str, object]]]:
    """Row -> figure -> mean, half width of the 95 % interval over seeds, and the values."""
    summary: dict[str, dict[str, dict[str, object]]] = {}
    for name, seeds in rows.items():
        summary[name] = {}
        for figure in fields(Figures):
            values = [getattr(figures, figure.name) for figures in seeds]
            mean, half = mean_and_interval(values)
            summary[name][figure.name] = {"mean": mean, "conf_interval": half, "values": values}
    return summary


def format_table(summary: dict[str, dict[str, dict[str, object]]]) -> str:
    rows = [
        [name, *(f"{f['mean']:.3f} ± {f['conf_interval']:.3f}" for f in figures.values())]
        for name, figures in summary.items()
    ]
    return markdown_table(["points of", "mean reward", "far mode", "KL"], rows)


def draw_figure(points: dict[str, Tensor], path: Path) -> None:
    """One panel per set of points: its density in colour, the reward's contours in white."""
    from matplotlib.figure import Figure

    axis, target = GRID.numpy(), TwoModes().density(grid_points()).T.numpy()
    figure = Figure(figsize=(3 * len(points), 3.2), layout="constrained")
    for axes, (name, found) in zip(figure.subplots(1, len(points)), points.items(), strict=True):
        density = kernel_density(found).T.numpy()
        axes.pcolormesh(axis, axis, density, cmap="viridis", vmax=target.max())
        axes.contour(axis, axis, target, levels=4, colors="white", linewidths=0.7)
        axes.set(title=name, xlim=(-7, 7), ylim=(-6, 6), aspect="equal")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    extra("matplotlib", "vis", "figures")
    folder = prepare_output_dir(options.save_dir, options.overwrite)
    rows: dict[str, list[Figures]] = {}
    progress = tqdm(total=options.num_seeds * len(options.methods), desc="toy example")
    for seed in range(options.seed, options.seed + options.num_seeds):
        points = run_seed(options, seed, progress)
        for name, found in points.items():
            rows.setdefault(name, []).append(measure(found, TwoModes()))
        if seed == options.seed:
            draw_figure(points, folder / "toy_example.png")
    progress.close()
    summary = summarize(rows)
    content = {"options": asdict(options), "rows": summary, "provenance": provenance()}
    write_json(folder / "toy_example.json", content)
    print(f"{options.num_seeds} seeds, 95 % intervals")
    print(format_table(summary))


if __name__ == "__main__":
    main()
