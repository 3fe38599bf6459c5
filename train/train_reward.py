"""Train a reward of another kind than TMR: ReAlign's, which can be told the step of the noise.

    python -m train.train_reward --kind realign --dataset kit --save_dir save/realign_kit
    python -m train.train_sopo --reward realign --realign_path save/realign_kit ...

The architecture and the losses are ReAlign's (Weng et al., AAAI 2026). Its training differs where
it serves another purpose: motions are noised as the generators of this project noise them, all
steps are equally likely, clean batches are told step 0, padding does not count, captions of one
meaning are no negatives of each other, and the best on val by retrieval is kept, as KIT-ML is small
enough to be learnt by heart.
"""

from utils.start import entry_point

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch, MotionDataset
from diffusion.gaussian import GaussianDiffusion
from diffusion.schedule import ScheduleOptions, make_schedule
from model.text.encoders import BuiltinEncoder, CachedTextEncoder, TextEncoderOptions
from model.text.sentence_vectors import SENTENCE_T5, T5TokenEncoder
from rewards.realign import BEST, MODES, RealignModel, StepMode
from rewards.realign_losses import realign_losses
from rewards.realign_network import RealignConfig, RealignNetwork
from train.data import (
    MotionEpochs,
    TrainingOptions,
    open_splits,
    validation_pool,
)
from train.fingerprints import fingerprints
from train.loop import Trainer, start_run
from train.retrieval import retrieval_score
from train.task import PlainTask, StepResult, options_to_args
from utils.errors import UserError
from utils.files import write_json
from utils.masks import zero_padding
from utils.options import option, parse_options, with_default

LAST = "last"
TOKENS = ("sentence_t5", "builtin")


@dataclass
class Options(ScheduleOptions, TrainingOptions, TextEncoderOptions):
    kind: str = option("realign", "which reward", choices=("realign",))
    reward_mode: str = option("M1T0", "towers that are told the step", choices=MODES)
    text_encoder_type: str = option(
        "sentence_t5", "tokens of captions; builtin needs no download", choices=TOKENS
    )
    latent_dim: int = option(256, "width of the towers, a multiple of 4", minimum=4)
    ff_size: int = option(1024, "width of the feed-forward layers", minimum=4)
    layers: int = option(9, "layers of each tower, an odd number", minimum=3)
    dropout: float = option(0.1, "dropout in training", minimum=0, maximum=0.99)
    noise_schedule: str = with_default("cosine", "the generator's noise")
    diffusion_steps: int = with_default(50, "its steps", maximum=None)
    noise_share: float = option(
        0.5,
        "share of batches that are noised; 0 = a reward of finished motions",
        minimum=0,
        maximum=1,
    )
    batch_size: int = with_default(64, minimum=2)
    num_steps: int = with_default(8000)
    lr_schedule: str = with_default("cosine")
    warmup_steps: int = with_default(1000)

    def validate(self) -> None:
        """Raises UserError for sizes that make no network."""
        if self.layers % 2 == 0:
            raise UserError(f"--layers {self.layers}: skip connections need an odd number")
        if self.latent_dim % RealignConfig.num_heads:
            raise UserError(
                f"--latent_dim {self.latent_dim} is no multiple of {RealignConfig.num_heads} heads"
            )


@dataclass(frozen=True)
class Noised:
    """motion ``[B, T, D]`` as the tower sees it, zero beyond the lengths; steps ``[B]``."""

    motion: Tensor
    steps: Tensor


class RealignTask(MotionEpochs, PlainTask):
    """ReAlign's losses on clean and on noised batches. `pool`: motions among which validation
    searches."""

    shown = ("contrastive",)

    def __init__(
        self,
        options: Options,
        model: RealignModel,
        data: MotionDataset,
        val_data: MotionDataset,
        pool: int,
    ) -> None:
        self.options, self.model, self.pool = options, model, pool
        self.data, self.val_data = data, val_data
        self.module: nn.Module = model.network
        schedule = make_schedule(options.noise_schedule, options.diffusion_steps)
        self.diffusion = GaussianDiffusion(schedule)

    def noised(self, motion: Tensor, lengths: Tensor, rng: torch.Generator) -> Noised:
        """A whole batch is noised or, by a coin, none of it, which is step 0."""
        size, device = len(motion), motion.device
        if float(torch.rand(1, generator=rng, device=device)) >= self.options.noise_share:
            return Noised(motion, torch.zeros(size, dtype=torch.long, device=device))
        steps = torch.randint(self.options.diffusion_steps, (size,), generator=rng, device=device)
        noise = torch.randn(motion.shape, generator=rng, device=device)
        return Noised(zero_padding(self.diffusion.q_sample(motion, steps, noise), lengths), steps)

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        model, network = self.model, self.model.network
        batch = batch.to(model.device)
        motion, mask = model.normalize(batch.motion, batch.lengths)
        seen = self.noised(motion, batch.lengths, rng)
        words = model.words.encode(batch.captions).to(model.device)
        texts = network.text_distribution(
            words.tokens, words.mask, seen.steps if model.mode.text else None
        )
        motions = network.motion_distribution(
            seen.motion, mask, seen.steps if model.mode.motion else None
        )
        draws = [
            torch.randn(texts.mean.shape, generator=rng, device=model.device) for _ in range(2)
        ]
        losses = realign_losses(
            network, texts, motions, seen.motion, mask, (draws[0], draws[1]), self.senses(batch)
        )
        parts = ("recons", "kl", "latent", "contrastive")
        return StepResult(
            losses.total, {name: getattr(losses, name).detach().sum() for name in parts}
        )

    def senses(self, batch: MotionBatch) -> Tensor:
        """Unit vectors ``[B, M]``, equal where captions mean the same and orthogonal elsewhere."""
        meanings = self.data.meanings(batch.captions)
        numbers = {meaning: number for number, meaning in enumerate(dict.fromkeys(meanings))}
        codes = torch.tensor([numbers[meaning] for meaning in meanings], device=self.model.device)
        return F.one_hot(codes).float()

    def validate(self) -> dict[str, float]:
        """Retrieval of clean motions, told step 0, in pools of distinct meanings."""
        self.module.eval()
        return retrieval_score(self.model, self.val_data, self.pool)

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        """``best_MODE.pth`` for the best on val, ``last_MODE.pth`` for the last one."""
        args = {**options_to_args(self.options), "step": step}
        write_json(save_dir / "args.json", args)
        path = save_dir / f"{BEST if best else LAST}_{self.options.reward_mode}.pth"
        return self.model.save(path, self.options.text_encoder_type, average)


def build_model(options: Options, data: MotionDataset, device: torch.device) -> RealignModel:
    """Untrained, in the statistics of the dataset, without which no generator's motions fit."""
    words: BuiltinEncoder | T5TokenEncoder
    if options.text_encoder_type == "builtin":
        words = BuiltinEncoder()
    else:
        words = T5TokenEncoder(options.text_encoder_path or SENTENCE_T5, device)
    config = RealignConfig(
        hidden_dim=options.latent_dim,
        ff_size=options.ff_size,
        layers=options.layers,
        dropout=options.dropout,
        num_features=data.skeleton.feature_dim,
        text_dim=words.width,
    )
    mode = StepMode.parse(options.reward_mode, "--reward_mode")
    network = RealignNetwork(config).to(device)
    return RealignModel(network, data.stats.to(device), CachedTextEncoder(words), mode)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    accelerator = start_run(options)
    data, val_data = open_splits(options)
    pool = validation_pool(val_data)
    model = build_model(options, data, accelerator.device)
    task, inputs = RealignTask(options, model, data, val_data, pool), fingerprints(data, val_data)
    Trainer(task, options, accelerator, inputs=inputs).run()


if __name__ == "__main__":
    main()
