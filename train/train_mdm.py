"""Train the base motion diffusion model (MDM) from scratch.

    python -m train.train_mdm --save_dir save/my_mdm --dataset humanml --diffusion_steps 50 \\
        --mask_frames --use_ema
    python -m train.train_mdm --save_dir save/mdm_synthetic --config configs/demo/mdm.yaml

The loss is the mean over samples of the masked squared error of the predicted x0 (MDM, Eq. 2).
"""

from utils.start import entry_point

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch, MotionDataset
from data_loaders.vocabulary import write_words
from model.mdm.checkpoints import load_weights
from model.mdm.generator import MDMGenerator, build_generator
from model.mdm.network import MDMConfig
from model.seam import Samples
from train.data import (
    fixed_batches,
    open_splits,
    steps_per_epoch,
    training_batches,
)
from train.inspection import InspectionOptions, inspector
from train.loop import Trainer, start_run
from train.task import StepResult, options_to_args
from utils.options import option, parse_options, with_default


@dataclass
class Options(MDMConfig, InspectionOptions):
    """Options of the model (stored in args.json), of the loop, and of the data."""

    resume_checkpoint: str = option("", "start from the weights of this checkpoint", free="resume")
    num_steps: int = with_default(InspectionOptions, "num_steps", 600_000)
    # Options of upstream's command lines that change nothing for these datasets there either
    num_frames: int = option(60, "of datasets of fixed length; unused", minimum=1)
    lambda_rcxyz: float = option(0.0, "loss on joints; undefined for these features", maximum=0)
    lambda_vel: float = option(0.0, "loss on velocities; undefined for these features", maximum=0)
    lambda_fc: float = option(0.0, "loss on foot contacts; undefined for these features", maximum=0)
    context_len: int = option(0, "prefix completion; not implemented", maximum=0)
    pred_len: int = option(0, "prefix completion; not implemented", maximum=0)


class DenoisingTask:
    """Uniform timesteps, masked x0 error, text dropped with `cond_mask_prob`."""

    shown = ()

    def __init__(
        self,
        options: Options,
        generator: MDMGenerator,
        data: MotionDataset,
        val_data: MotionDataset,
    ) -> None:
        self.options, self.generator = options, generator
        self.data, self.val_data = data, val_data
        self.module: nn.Module = generator.model

    def batches(self, epoch: int) -> Iterator[MotionBatch]:
        yield from training_batches(self.data, self.options, epoch, self.generator.padded_frames)

    def batches_per_epoch(self) -> int:
        return steps_per_epoch(self.data, self.options)

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
        loader = fixed_batches(self.val_data, self.options.batch_size, self.generator.padded_frames)
        errors = [self._errors(batch, rng, drop_text=False)[0] for batch in loader]
        return {"score": float(torch.cat(errors).mean())}

    def _errors(
        self, batch: MotionBatch, rng: torch.Generator, drop_text: bool
    ) -> tuple[Tensor, Tensor]:
        batch = batch.to(self.generator.device)
        size = len(batch.captions)
        t = torch.randint(self.generator.levels, (size,), generator=rng, device=rng.device)
        motions = self.generator.encode(Samples(batch.motion, batch.lengths))
        noise = self.generator.noise(motions, rng)
        condition = self.generator.encode_text(batch.captions)
        hide = torch.rand(size, generator=rng, device=rng.device) < self.options.cond_mask_prob
        return self.generator.error(motions, t, noise, condition, hide if drop_text else None), t

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        write_words(save_dir, self.data.captions())
        return self.generator.save(save_dir, step, average, options_to_args(self.options))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    inspect = inspector(options)
    accelerator = start_run(options)
    data, val_data = open_splits(options)
    generator = build_generator(
        options, data.stats, data.skeleton, accelerator.device, options.text_encoder_path
    )
    if options.resume_checkpoint:
        load_weights(generator.model, options.resume_checkpoint)
    task = DenoisingTask(options, generator, data, val_data)
    Trainer(task, options, accelerator, inspect).run()


if __name__ == "__main__":
    main()
