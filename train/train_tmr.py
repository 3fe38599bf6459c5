"""Train the text-motion retrieval model (TMR) that serves as reward, or as an independent judge.

    python -m train.train_tmr --save_dir models/tmr_mine --dataset humanml --text_encoder_type bert
    python -m train.train_tmr --save_dir save/judge --dataset synthetic --seed 77 --phrasings odd

`--phrasings even|odd` keeps every second caption of a clip, so that a reward and a judge can learn
from different wordings of the same motions. The recipe (losses and weights) is that of TMR,
sections 3 and 4.
"""

from utils.start import entry_point

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_loaders.humanml import MotionBatch, MotionDataset
from model.text.encoders import CachedTextEncoder, TextEncoderOptions, build_text_encoder
from tmr.losses import LossWeights, false_negatives, tmr_loss
from tmr.model import BEST, LAST, TMR, TMRConfig
from train.data import (
    MotionEpochs,
    TrainingOptions,
    open_splits,
    validation_pool,
)
from train.fingerprints import fingerprints
from train.loop import Trainer, start_run
from train.retrieval import retrieval_score
from train.task import StepResult, options_to_args
from utils.files import write_json
from utils.options import option, parse_options, with_default


@dataclass
class Options(TMRConfig, TrainingOptions, TextEncoderOptions):
    phrasings: str = option(
        "all", "captions of each clip to learn from", choices=("all", "even", "odd")
    )
    temperature: float = option(0.1, "of the contrastive loss", minimum=1e-3)
    contrastive_weight: float = option(0.1, "of the contrastive loss", minimum=0)
    latent_weight: float = option(1e-5, "of the latent loss", minimum=0)
    kl_weight: float = option(1e-5, "of the KL losses", minimum=0)
    batch_size: int = with_default(32, minimum=2)
    weight_decay: float = with_default(0.01)
    num_steps: int = with_default(360_000)


class RetrievalTask(MotionEpochs):
    """Reconstruction, KL, latent and contrastive losses of TMR.

    `pool`: motions among which validation searches.
    """

    shown = ("contrastive",)

    def __init__(
        self, options: Options, tmr: TMR, data: MotionDataset, val_data: MotionDataset, pool: int
    ) -> None:
        self.options, self.tmr, self.pool = options, tmr, pool
        self.data, self.val_data = data, val_data
        self.module: nn.Module = tmr
        self.last_step = 0  # that of ``last_weights``
        self.weights = LossWeights(
            latent=options.latent_weight,
            kl=options.kl_weight,
            contrastive=options.contrastive_weight,
            temperature=options.temperature,
        )

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        batch = batch.to(self.tmr.device)
        meanings = self.data.meanings(batch.captions)
        losses = tmr_loss(
            self.tmr,
            batch.motion,
            batch.lengths,
            batch.captions,
            exclude=false_negatives(meanings).to(self.tmr.device),
            weights=self.weights,
            rng=rng,
        )
        parts = ("recons", "kl", "latent", "contrastive")
        return StepResult(losses.total, {name: getattr(losses, name).detach() for name in parts})

    def validate(self) -> dict[str, float]:
        """Retrieval on the val split in pools of distinct meanings."""
        self.module.eval()
        return retrieval_score(self.tmr, self.val_data, self.pool)

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        """``last_weights`` as upstream names them, ``best_weights`` for the best on val."""
        path = self.tmr.save(save_dir, BEST if best else LAST)
        self.last_step = self.last_step if best else step
        args = {**options_to_args(self.options), "step": self.last_step}
        write_json(save_dir / "args.json", args)
        return path

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self.last_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last_step = state.get("last_step", self.last_step)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    accelerator = start_run(options)
    data, val_data = open_splits(options, options.phrasings)
    pool = validation_pool(val_data)
    encoder = build_text_encoder(options.text_encoder_type, options.text_encoder_path or None)
    tmr = TMR(options, data.feature_stats(), CachedTextEncoder(encoder))
    task = RetrievalTask(options, tmr.to(accelerator.device), data, val_data, pool)
    Trainer(task, options, accelerator, inputs=fingerprints(data, val_data)).run()


if __name__ == "__main__":
    main()
