"""The networks of MoMask as tasks of the training loop.

Source: Guo et al., "MoMask", CVPR 2024, and its public implementation. The best on val is that of
lowest loss; upstream goes by FID, which needs the evaluators, but its file names are kept.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_loaders.features import feature_slices
from data_loaders.humanml import MotionBatch, MotionDataset
from data_loaders.vocabulary import write_words
from model.momask.checkpoints import (
    DIGEST,
    LENGTHS,
    RESIDUAL,
    RVQ,
    save_part,
    save_tokens,
    save_transformer,
)
from model.momask.draws import Draws
from model.momask.lengths import LengthEstimator
from model.momask.options_file import DATASET_NAMES
from model.momask.rvq import RVQVAE, RVQLosses, rvq_losses
from model.momask.statistics import momask_statistics
from model.momask.token_space import TokenSpace
from model.momask.training import CorruptionDraws, TokenLoss, active_layer, corrupt, token_loss
from model.momask.transformers import BaseTransformer, ResidualTransformer
from model.seam import Samples
from model.text.condition import TextEncoder
from train.data import MotionEpochs, fixed_batches
from train.momask_options import MoMaskOptions
from train.task import PlainTask, StepResult, options_to_args
from train.windows import Windows
from utils.files import write_json
from utils.seeding import torch_generator

LATEST = "latest.tar"
BEST_BASE = "net_best_loss.tar"  # upstream's, too; the base transformer is used as it was last


class Stage(PlainTask):
    """What the networks share as tasks of the training loop."""

    module: nn.Module

    def __init__(
        self,
        options: MoMaskOptions,
        data: MotionDataset,
        val_data: MotionDataset,
        device: torch.device,
    ) -> None:
        self.options, self.data, self.val_data = options, data, val_data
        self.device = device

    def write_args(self, save_dir: Path, step: int) -> dict[str, Any]:
        """Write ``args.json``; returns the entries of ``opt.txt`` that are no sizes."""
        args = {**options_to_args(self.options), "step": step}
        write_json(save_dir / "args.json", args)
        dataset = self.options.dataset
        return {"name": save_dir.name, "dataset_name": DATASET_NAMES.get(dataset, dataset)}


class RVQTask(Stage):
    """The RVQ on windows of the clips. Its codebooks' averages are part of the state."""

    module: RVQVAE
    shown = ("recons", "perplexity")

    def __init__(
        self,
        options: MoMaskOptions,
        data: MotionDataset,
        val_data: MotionDataset,
        device: torch.device,
    ) -> None:
        super().__init__(options, data, val_data, device)
        self.stats, frames = momask_statistics(data.stats), options.window
        self.windows = Windows(data, "train", self.stats, frames)
        self.val_windows = Windows(val_data, "val", self.stats, frames, stride=frames)
        self.windows.check_batch_size("--batch_size", options.batch_size)
        self.module = RVQVAE(options.rvq_config(), data.skeleton.feature_dim).to(device)
        self.positions = feature_slices(data.skeleton).positions

    def batches(self, epoch: int) -> Iterator[Tensor]:
        yield from self.windows.shuffled(self.options.batch_size, self.options.seed, epoch)

    def batches_per_epoch(self) -> int:
        return self.windows.batches_per_epoch(self.options.batch_size)

    def step(self, batch: Tensor, step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        losses, perplexity = self.losses(batch, Draws(rng, self.device))
        parts = ("recons", "positions", "commitment")
        metrics = {name: getattr(losses, name).detach() for name in parts}
        return StepResult(losses.total, metrics | {"perplexity": perplexity})

    def losses(self, batch: Tensor, draws: Draws | None) -> tuple[RVQLosses, Tensor]:
        """Of normalised windows ``[B, T, D]``; and the perplexity of their codes."""
        motion, options = batch.to(self.device), self.options
        output = self.module(motion, draws)
        weights = (options.positions_weight, options.commitment_weight)
        losses = rvq_losses(output, motion, self.positions, *weights)
        return losses, output.quantised.perplexity

    def validate(self) -> dict[str, float]:
        """The loss of the windows side by side in the val split, with all layers."""
        self.module.eval()
        total = recons = 0.0
        for batch in self.val_windows.in_order():
            losses, _ = self.losses(batch, None)
            total += len(batch) * float(losses.total)
            recons += len(batch) * float(losses.recons)
        count = len(self.val_windows)
        return {"score": total / count, "recons": recons / count}

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        args = self.write_args(save_dir, step)
        return save_tokens(save_dir, self.module, self.stats, args, RVQ.file if best else LATEST)

    def state_dict(self) -> dict[str, Any]:
        return {"averages": self.module.quantizer.averages()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.quantizer.load_averages(state["averages"])


class CaptionedStage(MotionEpochs, Stage):
    """What is learnt from clips and their captions on the tokens of a finished RVQ."""

    def __init__(
        self,
        options: MoMaskOptions,
        data: MotionDataset,
        val_data: MotionDataset,
        device: torch.device,
        tokens: TokenSpace,
        text_encoder: TextEncoder,
    ) -> None:
        super().__init__(options, data, val_data, device)
        self.tokens, self.text_encoder = tokens, text_encoder

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        draws = Draws(rng, self.device)
        hidden = draws.uniform(len(batch.captions)) < self.options.cond_drop_prob
        found = self.token_loss(batch.to(self.device), draws, hidden)
        return StepResult(found.loss, {"accuracy": found.accuracy})

    def validate(self) -> dict[str, float]:
        """The loss on the val split, with the same draws every time and every caption seen."""
        self.module.eval()
        draws, rows = Draws(torch_generator(0, self.device), self.device), 0
        loss = accuracy = 0.0
        for batch in fixed_batches(self.val_data, self.options.batch_size):
            count = len(batch.captions)
            found = self.token_loss(batch.to(self.device), draws, None)
            loss, rows = loss + count * float(found.loss), rows + count
            accuracy += count * float(found.accuracy)
        return {"score": loss / rows, "accuracy": accuracy / rows}

    def token_loss(self, batch: MotionBatch, draws: Draws, hidden: Tensor | None) -> TokenLoss:
        """Of one batch; `hidden` ``[B]`` are the rows whose caption is not shown."""
        raise NotImplementedError

    def text(self, batch: MotionBatch) -> Tensor:
        """Features ``[B, E]`` of the captions."""
        return self.text_encoder.encode(batch.captions).to(self.device).tokens[:, 0]

    def encode(self, batch: MotionBatch) -> tuple[Tensor, Tensor]:
        """Ids ``[B, n, Q]`` of clips padded to the longest length, and which ``[B, n]`` are of the
        clip."""
        samples = self.tokens.encode(Samples(batch.motion, batch.lengths))
        return samples.x, self.tokens.valid(samples.frames, samples.x.shape[1])


class TransformerTask(CaptionedStage):
    """What the base and the residual transformer share."""

    module: BaseTransformer | ResidualTransformer
    shown = ("accuracy",)
    best_file: str
    network: type[BaseTransformer] | type[ResidualTransformer]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        config, width = self.options.transformer_config(), self.text_encoder.width
        self.module = self.network(config, self.tokens.vocabulary, width).to(self.device)

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        """``latest.tar``, or the stage's file for the best on val."""
        args = self.write_args(save_dir, step)
        args["text_encoder_type"] = self.options.text_encoder_type
        args[DIGEST] = self.tokens.digest
        write_words(save_dir, self.data.captions())
        file, model = self.best_file if best else LATEST, average or self.module
        return save_transformer(save_dir, model, self.tokens.folder.name, args, file)


class BaseTask(TransformerTask):
    """The base transformer: ids of layer 0 from partly masked ones."""

    best_file, network = BEST_BASE, BaseTransformer
    module: BaseTransformer

    def token_loss(self, batch: MotionBatch, draws: Draws, hidden: Tensor | None) -> TokenLoss:
        ids, valid = self.encode(batch)
        ids, model = ids[..., 0], self.module
        drawn = CorruptionDraws.draw(*ids.shape, self.tokens.vocabulary.codes, draws)
        corrupted = corrupt(ids, valid, model.mask_id, model.pad_id, drawn)
        count = int(valid.sum(1).max())  # what is padding in every row need not be computed
        logits = model(corrupted.ids[:, :count], self.text(batch), valid[:, :count], hidden)
        return token_loss(logits.float(), ids[:, :count], corrupted.chosen[:, :count])


class ResidualTask(TransformerTask):
    """The residual transformer: ids of one layer from those below."""

    best_file, network = RESIDUAL.file, ResidualTransformer
    module: ResidualTransformer

    def token_loss(self, batch: MotionBatch, draws: Draws, hidden: Tensor | None) -> TokenLoss:
        ids, valid = self.encode(batch)
        count, model = int(valid.sum(1).max()), self.module
        ids, valid = ids[:, :count], valid[:, :count]
        layer = active_layer(draws.uniform(len(ids)), self.tokens.vocabulary.layers)
        history = model.history(ids.masked_fill(~valid.unsqueeze(-1), model.pad_id), layer)
        logits = model(history, layer, self.text(batch), valid, hidden)
        targets = ids.gather(2, layer.view(-1, 1, 1).expand(-1, count, 1)).squeeze(-1)
        return token_loss(logits.float(), targets, valid)


class LengthTask(CaptionedStage):
    """The length estimator: the number of tokens of a caption's motion."""

    module: LengthEstimator
    shown = ("accuracy",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        classes = self.tokens.longest + 1
        self.module = LengthEstimator(self.text_encoder.width, classes, self.options.dropout)
        self.module.to(self.device)

    def token_loss(self, batch: MotionBatch, draws: Draws, hidden: Tensor | None) -> TokenLoss:
        logits = self.module(self.text(batch))
        tokens = self.tokens.whole_tokens(batch.lengths) // self.tokens.unit
        right = (logits.argmax(dim=-1) == tokens).float().mean()
        return TokenLoss(F.cross_entropy(logits.float(), tokens), right)

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        """``model/finest.tar`` for the best on val, else ``model/latest.tar``."""
        self.write_args(save_dir, step)
        path = save_dir / "model" / (LENGTHS.file if best else LATEST)
        return save_part(path, LENGTHS, average or self.module)


TASKS: dict[str, type[CaptionedStage]] = {
    "base": BaseTask,
    "residual": ResidualTask,
    "lengths": LengthTask,
}
