"""Train latent motion diffusion (MLD) from scratch: a motion VAE, then the denoiser of its latents.

    python -m train.train_mld --stage vae --save_dir save/my_vae --config configs/mld/v1_vae.yaml
    python -m train.train_mld --stage diffusion --save_dir save/my_mld --vae_path save/my_vae \\
        --config configs/mld/v1_diffusion.yaml

The losses are masked: padding counts nothing (model/latent/losses.py). In the second stage the VAE
is frozen and in eval mode; every step draws fresh latents from it. configs/mld/ holds the published
sizes and recipes, and small ones for minutes of a CPU.
"""

from utils.start import entry_point

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from data_loaders.features import features_to_joints
from data_loaders.humanml import MotionBatch, MotionDataset
from data_loaders.normalizer import Statistics
from model.checkpoint_files import find_checkpoint
from model.distribution import Distribution
from model.latent.assembly import TrainedVAE, build_mld, check_statistics, read_vae
from model.latent.checkpoints import LatentSettings, save_checkpoint
from model.latent.generator import MLDGenerator
from model.latent.losses import VAELosses, VAELossWeights, vae_losses
from model.latent.skip_transformer import SkipTransformerConfig
from model.latent.vae import MotionVAE, VAEConfig
from train.data import MotionEpochs, fixed_batches, open_splits
from train.denoising import DenoisingTask
from train.fingerprints import fingerprints
from train.inspection import InspectionOptions, inspector
from train.loop import Trainer, start_run
from train.task import PlainTask, StepResult, options_to_args
from utils.errors import UserError
from utils.masks import length_mask
from utils.options import option, parse_options, with_default

STAGES = ("vae", "diffusion")


@dataclass
class Options(LatentSettings, InspectionOptions):
    """Options of both networks, of the loop, and of the data; what the VAE has is taken from its
    checkpoint in the second stage."""

    stage: str = option("vae", "the network to train", required=True, choices=STAGES)
    vae_path: str = option(
        "", "checkpoint or run folder of --stage vae, for --stage diffusion", free="resume"
    )
    latent_tokens: int | None = option(None, "latents of a motion; none = 1", minimum=1)
    latent_dim: int | None = option(
        None, "width of a latent; none = hidden_dim, else layers project", minimum=1
    )
    hidden_dim: int = option(256, "width of the transformers", minimum=1)
    ff_size: int = option(1024, "width of their feed-forward layers", minimum=1)
    layers: int = option(9, "blocks of each, an odd number", minimum=1)
    max_positions: int = option(500, "learned positions, 2 per latent and 1 per frame", minimum=1)
    joint_weight: float | None = option(
        None, "of the joints' error in the VAE's loss; none = 1 per metre: KIT has mm", minimum=0
    )
    position_weight: float = option(0.0, "of the positions among the features, there", minimum=0)
    kl_weight: float = option(1e-4, "of the divergence from a standard normal, there", minimum=0)
    num_steps: int = with_default(1_100_000)

    def validate(self) -> None:
        """Raises UserError for options that exclude each other."""
        if (self.stage == "diffusion") != bool(self.vae_path):
            raise UserError(
                "--stage diffusion needs --vae_path, a run of --stage vae; that stage takes none"
            )
        if self.hidden_dim % self.num_heads:
            raise UserError(
                f"--hidden_dim {self.hidden_dim} is no multiple of --num_heads {self.num_heads}"
            )
        if self.stage == "vae" and (self.gen_during_training or self.eval_during_training):
            raise UserError("a VAE alone generates nothing: show and benchmark --stage diffusion")

    @property
    def trunk(self) -> SkipTransformerConfig:
        return SkipTransformerConfig(
            self.hidden_dim,
            self.ff_size,
            self.layers,
            self.num_heads,
            self.dropout,
            self.max_positions,
        )

    @property
    def settings(self) -> LatentSettings:
        return LatentSettings(**{name: getattr(self, name) for name in vars(LatentSettings())})


@dataclass(frozen=True)
class Reconstruction:
    """Normalised motions ``[B, T, D]`` before and after, their mask ``[B, T]``, their latents."""

    decoded: Tensor
    motion: Tensor
    mask: Tensor
    latents: Distribution


class VAETask(MotionEpochs, PlainTask):
    """Reconstruction of features and joints with a weak prior on the latents."""

    shown = ("features", "joints")

    def __init__(
        self,
        options: Options,
        vae: MotionVAE,
        stats: Statistics,
        data: MotionDataset,
        val_data: MotionDataset,
    ) -> None:
        self.options, self.stats = options, stats
        self.data, self.val_data = data, val_data
        self.module: nn.Module = vae
        self.skeleton = check_statistics(vae, stats)
        joints = options.joint_weight
        self.weights = VAELossWeights(
            joints=1 / self.skeleton.units_per_metre if joints is None else joints,
            positions=options.position_weight,
            kl=options.kl_weight,
        )

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        losses = self._losses(self._reconstruct(batch, rng))
        terms = ("features", "joints", "positions", "kl")
        return StepResult(losses.total, {name: getattr(losses, name).detach() for name in terms})

    def validate(self) -> dict[str, float]:
        """Means over the val split, of latents drawn with fixed noise; joint_error: how far a joint
        is off, in metres."""
        self.module.eval()
        rng = torch.Generator(self.stats.mean.device).manual_seed(0)
        rows, sizes = [], []
        for batch in fixed_batches(self.val_data, self.options.batch_size):
            found = self._reconstruct(batch, rng)
            losses, error = self._losses(found), self._joint_error(found)
            rows.append(torch.stack([losses.total, losses.features, losses.kl, error]))
            sizes.append(len(batch.captions))
        means = torch.stack(rows).double().T @ torch.tensor(sizes).to(rows[0].device).double()
        names = ("score", "features", "kl", "joint_error")
        return dict(zip(names, (means / sum(sizes)).tolist(), strict=True))

    def _reconstruct(self, batch: MotionBatch, rng: torch.Generator) -> Reconstruction:
        batch = batch.to(self.stats.mean.device)
        motion = batch.normalized(self.stats)
        mask = length_mask(batch.lengths, motion.shape[1])
        found = self.module.distribution(motion, mask)
        latents = Distribution(found.mean.float(), found.logvar.float())
        noise = torch.randn(latents.mean.shape, generator=rng, device=rng.device)
        decoded = self.module.decode(latents.sample(noise), batch.lengths, motion.shape[1])
        return Reconstruction(decoded.float(), motion, mask, latents)

    def _losses(self, found: Reconstruction) -> VAELosses:
        return vae_losses(
            found.decoded,
            found.motion,
            found.mask,
            found.latents,
            self.stats,
            self.skeleton,
            self.weights,
        )

    def _joint_error(self, found: Reconstruction) -> Tensor:
        """Mean distance of joints over valid frames, then over motions, in metres."""
        joints, target = (
            features_to_joints(self.stats.denormalize(x), self.skeleton)
            for x in (found.decoded, found.motion)
        )
        distance = (joints - target).norm(dim=-1).mean(dim=-1) * found.mask
        mean = (distance.sum(dim=1) / found.mask.sum(dim=1)).mean()
        return mean / self.skeleton.units_per_metre

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        networks, args = {"vae": self.module}, options_to_args(self.options)
        return save_checkpoint(
            save_dir, step, networks, self.stats, self.options.settings, average, args
        )


def new_vae(options: Options, data: MotionDataset) -> MotionVAE:
    """Raises UserError where its positions are too few for the motions."""
    config = VAEConfig(
        **vars(options.trunk),
        num_features=data.stats.feature_dim,
        latent_tokens=options.latent_tokens or 1,
        latent_dim=options.latent_dim or options.hidden_dim,
        projected=options.latent_dim not in (None, options.hidden_dim),
    )
    vae = MotionVAE(config)
    vae.check_length(max(entry.length for entry in data.entries))
    return vae


def open_vae(options: Options, data: MotionDataset) -> TrainedVAE:
    """The first stage's. Raises UserError where it does not fit the options or the data."""
    path = find_checkpoint(options.vae_path)
    found = read_vae(path, options.data_dir)
    if found.vae.config.num_features != data.stats.feature_dim:
        raise UserError(
            f"--vae_path {path} is of motions of {found.vae.config.num_features} features, the "
            f"dataset has {data.stats.feature_dim} ({data.skeleton.name}); pass a matching "
            "--dataset"
        )
    for name in ("latent_tokens", "latent_dim", "num_heads"):
        wanted, there = getattr(options, name), getattr(found.vae.config, name)
        if wanted not in (None, there):
            raise UserError(
                f"--{name} {wanted}: the VAE of {path} has {there}, as the denoiser must"
            )
    return found


def build_generator(options: Options, found: TrainedVAE, device: torch.device) -> MLDGenerator:
    """A new denoiser for the VAE's latents and statistics."""
    return build_mld(
        found.vae, options.trunk, options.settings, found.stats, device, options.text_encoder_path
    )


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    inspect = inspector(options)
    accelerator = start_run(options)
    data, val_data = open_splits(options)
    task: VAETask | DenoisingTask
    if options.stage == "vae":
        vae, stats = new_vae(options, data), data.stats.to(accelerator.device)
        task = VAETask(options, vae.to(accelerator.device), stats, data, val_data)
    else:
        generator = build_generator(options, open_vae(options, data), accelerator.device)
        task = DenoisingTask(options, options.cond_mask_prob, generator, data, val_data)
    inputs = fingerprints(data, val_data)
    Trainer(task, options, accelerator, inspect, inputs=inputs).run()


if __name__ == "__main__":
    main()
