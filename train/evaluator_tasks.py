"""The two stages of training the co-embedding evaluators, as tasks of the training loop.

Source: Guo et al., "Generating Diverse and Natural 3D Human Motions from Text", CVPR 2022.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch, MotionDataset, make_loader
from model.text.word_tokens import BuiltinEncoder, WordLlamaEncoder
from rewards.co_embedding import (
    Evaluators,
    EvaluatorSizes,
    MovementConvDecoder,
    MovementConvEncoder,
)
from rewards.word_vectors import WordVectorizer
from train.data import MotionEpochs, TrainingOptions
from train.task import PlainTask, StepResult
from train.windows import Windows
from utils.errors import UserError
from utils.files import load_tensors, save_tensors
from utils.options import option, with_default

MOVEMENTS = "Decomp_SP001_SM001_H512"  # upstream's folders of the two stages
MATCHING = "text_mot_match"


WORD_VECTORS = {"builtin": BuiltinEncoder, "wordllama": WordLlamaEncoder}


@dataclass
class EvaluatorOptions(TrainingOptions):
    glove_dir: str = option(
        "", "folder of GloVe, where it is not glove; none = those of --word_vectors", free="resume"
    )
    word_vectors: str = option(
        "builtin", "without a folder of GloVe: fixed or trained ones", choices=tuple(WORD_VECTORS)
    )
    movement_steps: int = option(
        100_000, "steps of the movement autoencoder", minimum=1, free="upwards"
    )
    movement_batch_size: int = option(128, "its windows per step and process", minimum=1)
    window: int = option(24, "its frames, a multiple of 4", minimum=8)
    movement_hidden: int = option(512, "width inside the movement encoder", minimum=1)
    movement: int = option(512, "width of a movement", minimum=1)
    text_hidden: int = option(512, "width of the text encoder", minimum=1)
    motion_hidden: int = option(1024, "width of the motion encoder", minimum=1)
    embedding: int = option(512, "width of the common space", minimum=1)
    margin: float = option(10.0, "distance that negatives should have", minimum=0)
    num_steps: int = with_default(219_000, "steps of the co-embedding")
    batch_size: int = with_default(32, "its motions per step and process", minimum=2)
    grad_clip: float = with_default(0.5)
    precision: str = with_default("fp32")

    def validate(self) -> None:
        if self.window % 4:
            raise UserError(f"--window {self.window} must be a multiple of 4 frames")

    def sizes(self, features: int, word: int) -> EvaluatorSizes:
        return EvaluatorSizes(
            features,
            self.movement_hidden,
            self.movement,
            word,
            self.text_hidden,
            self.motion_hidden,
            self.embedding,
        )


def initialise(network: nn.Module) -> None:
    """Xavier normal weights and zero biases, but for the GRUs (upstream)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d, nn.Linear)):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)


def movement_loss(autoencoder: nn.ModuleDict, motion: Tensor) -> dict[str, Tensor]:
    """Reconstruction, sparsity and smoothness of the movements of windows ``[B, T, D]``."""
    z = autoencoder["movement_enc"](motion)
    return {
        "recons": (autoencoder["movement_dec"](z) - motion).abs().mean(),
        "sparsity": 0.001 * z.abs().mean(),
        "smoothness": 0.001 * (z[:, 1:] - z[:, :-1]).abs().mean(),
    }


def matching_loss(
    texts: Tensor, motions: Tensor, shift: int, meanings: list[str], margin: float
) -> dict[str, Tensor]:
    """The contrastive loss of embeddings ``[B, d]``: text i belongs to motion i, and should be
    `margin` from motion i + shift, unless that one's caption states the same."""
    shifted = [*meanings[shift:], *meanings[:shift]]
    different = [a != b for a, b in zip(meanings, shifted, strict=True)]
    other = nn.functional.pairwise_distance(texts, motions.roll(-shift, dims=0))
    hinge = (margin - other).clamp(min=0).square()
    weight = torch.tensor(different, dtype=hinge.dtype, device=hinge.device)
    return {
        "positive": nn.functional.pairwise_distance(texts, motions).square().mean(),
        "negative": (hinge * weight).sum() / weight.sum().clamp(min=1),
    }


class Stage(PlainTask):
    """What both stages share as tasks of the training loop."""

    module: nn.Module

    def __init__(self, device: torch.device) -> None:
        self.device = device


class MovementTask(Stage):
    """The movement autoencoder (first stage)."""

    def __init__(
        self,
        options: EvaluatorOptions,
        data: MotionDataset,
        val: MotionDataset,
        device: torch.device,
    ) -> None:
        super().__init__(device)
        self.options = options
        window = options.window
        self.windows = Windows(data, "train", data.stats, window)
        self.val_windows = Windows(val, "val", val.stats, window, stride=window)
        sizes = (data.stats.feature_dim, options.movement_hidden, options.movement)
        self.module = nn.ModuleDict(
            {
                "movement_enc": MovementConvEncoder(*sizes),
                "movement_dec": MovementConvDecoder(*sizes),
            }
        ).to(device)
        initialise(self.module)
        self.windows.check_batch_size("--movement_batch_size", options.movement_batch_size)

    def batches(self, epoch: int) -> Iterator[Tensor]:
        yield from self.windows.shuffled(self.options.movement_batch_size, self.options.seed, epoch)

    def batches_per_epoch(self) -> int:
        return self.windows.batches_per_epoch(self.options.movement_batch_size)

    def step(self, batch: Tensor, step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        losses = movement_loss(self.module, batch.to(self.device))
        return StepResult(sum(losses.values()), {k: v.detach() for k, v in losses.items()})

    def validate(self) -> dict[str, float]:
        """Mean reconstruction error of the windows side by side in the val split."""
        self.module.eval()
        errors = [
            len(motion) * float(movement_loss(self.module, motion.to(self.device))["recons"])
            for motion in self.val_windows.in_order()
        ]
        return {"score": sum(errors) / len(self.val_windows)}

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        """``model/latest.tar``: upstream keeps the last one."""
        path = save_dir / "model" / ("best.tar" if best else "latest.tar")
        networks = (average or self.module).named_children()
        state = {name: network.state_dict() for name, network in networks}
        save_tensors(path, state | {"ep": step // self.batches_per_epoch(), "total_it": step})
        return path


class MatchingTask(MotionEpochs, Stage):
    """The co-embedding of texts and motions on frozen movements (second stage)."""

    module: Evaluators

    def __init__(
        self,
        options: EvaluatorOptions,
        data: MotionDataset,
        val: MotionDataset,
        vectorizer: WordVectorizer,
        device: torch.device,
    ) -> None:
        super().__init__(device)
        self.options, self.data, self.val = options, data, val
        self.vectorizer, self.padded_frames = vectorizer, data.skeleton.max_length
        sizes = options.sizes(data.stats.feature_dim, vectorizer.vectors.shape[1])
        self.module = Evaluators(sizes).to(device)
        initialise(self.module)
        movements = load_tensors(Path(options.save_dir) / MOVEMENTS / "model" / "latest.tar")
        self.module.movement_encoder.load_state_dict(movements["movement_enc"])
        self.module.movement_encoder.requires_grad_(False)

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        self.module.movement_encoder.eval()
        shift = int(torch.randint(1, len(batch.captions), ()))  # seeded by the step
        losses = self.losses(batch, shift)
        return StepResult(sum(losses.values()), {k: v.detach() for k, v in losses.items()})

    def losses(self, batch: MotionBatch, shift: int) -> dict[str, Tensor]:
        texts = self.module.embed_texts(self.vectorizer.encode(batch.tokens).to(self.device))
        normalised = batch.normalized(self.data.stats).to(self.device)
        motions = self.module.embed_motions(normalised, batch.lengths)
        meanings = batch.names  # without annotations every other clip is a negative
        if self.data.annotations:
            meanings = self.data.meanings(batch.captions)
        return matching_loss(texts, motions, shift, meanings, self.options.margin)

    def validate(self) -> dict[str, float]:
        """The loss on the val split, with the same pairs of negatives every time."""
        self.module.eval()
        batches = make_loader(
            self.val,
            self.options.batch_size,
            shuffle=True,
            pad_to=self.val.skeleton.max_length,
        )
        losses = [self.losses(batch, 1) for batch in batches if len(batch.captions) > 1]
        figures = {k: float(np.mean([float(loss[k]) for loss in losses])) for k in losses[0]}
        return {"score": sum(figures.values()), **figures}

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        """``model/finest.tar`` for the best on val, ``model/latest.tar`` for the last one."""
        path = save_dir / "model" / ("finest.tar" if best else "latest.tar")
        networks = (average or self.module).named_children()
        state = {name: network.state_dict() for name, network in networks}
        save_tensors(path, state | {"epoch": step // self.batches_per_epoch(), "iter": step})
        return path
