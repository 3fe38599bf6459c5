"""Training of a base model: the denoising error of a dataset's motions."""

from pathlib import Path

import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch, MotionDataset
from data_loaders.vocabulary import write_words
from model.latent.generator import MLDGenerator
from model.mdm.generator import MDMGenerator
from model.seam import Samples
from train.data import MotionEpochs, TrainingOptions, fixed_batches
from train.task import PlainTask, StepResult, options_to_args


class DenoisingTask(MotionEpochs, PlainTask):
    """Uniform timesteps, the generator's own error, captions dropped with `cond_mask_prob`."""

    def __init__(
        self,
        options: TrainingOptions,
        cond_mask_prob: float,
        generator: MDMGenerator | MLDGenerator,
        data: MotionDataset,
        val_data: MotionDataset,
    ) -> None:
        self.options, self.cond_mask_prob, self.generator = options, cond_mask_prob, generator
        self.data, self.val_data = data, val_data
        self.padded_frames = generator.padded_frames
        self.module: nn.Module = generator.model

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        error, t = self._errors(batch, rng, drop_text=True)
        quarter = t * 4 // self.generator.levels
        metrics: dict[str, Tensor | float] = {
            f"loss_q{q}": error.detach()[quarter == q].mean() for q in quarter.unique().tolist()
        }
        return StepResult(error.mean(), metrics)

    def validate(self) -> dict[str, float]:
        """Mean denoising error over the val split, with fixed timesteps and noise."""
        self.module.eval()
        rng = torch.Generator(self.generator.device).manual_seed(0)
        loader = fixed_batches(self.val_data, self.options.batch_size, self.padded_frames)
        errors = [self._errors(batch, rng, drop_text=False)[0] for batch in loader]
        return {"score": float(torch.cat(errors).mean())}

    def _errors(
        self, batch: MotionBatch, rng: torch.Generator, drop_text: bool
    ) -> tuple[Tensor, Tensor]:
        batch = batch.to(self.generator.device)
        size = len(batch.captions)
        t = torch.randint(self.generator.levels, (size,), generator=rng, device=rng.device)
        motions = self.generator.encode(Samples(batch.motion, batch.lengths), rng)
        noise = self.generator.noise(motions, rng)
        condition = self.generator.encode_text(batch.captions)
        hide = torch.rand(size, generator=rng, device=rng.device) < self.cond_mask_prob
        return self.generator.error(motions, t, noise, condition, hide if drop_text else None), t

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        write_words(save_dir, self.data.captions())
        return self.generator.save(save_dir, step, average, options_to_args(self.options))
