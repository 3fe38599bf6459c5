"""Tiny untrained evaluators in upstream's folder layout, for tests."""

from pathlib import Path

import numpy as np
import torch

from rewards.co_embedding import Evaluators, EvaluatorSizes
from utils.files import save_tensors

TINY = EvaluatorSizes(
    movement_hidden=8, movement=6, word=10, text_hidden=8, motion_hidden=8, embedding=4
)
MEAN, STD = 3.0, 50.0  # of the evaluator's statistics, for every feature


def checkpoint(evaluators: Evaluators) -> dict:
    """Upstream's ``finest.tar``: three state dicts beside optimisers and counters."""
    state = {name: net.state_dict() for name, net in evaluators.named_children()}
    return state | {"opt_text_encoder": {"state": {}}, "epoch": 3, "iter": 12}


def write_evaluators(folder: Path, sizes: EvaluatorSizes = TINY, seed: int = 0) -> Path:
    """Checkpoint and statistics in `folder`, which stands for upstream's ``t2m``."""
    torch.manual_seed(seed)
    path = folder / "text_mot_match" / "model" / "finest.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, checkpoint(Evaluators(sizes)))
    write_statistics(folder / "Comp_v6_KLD005" / "meta", "", sizes.features)
    return folder


def write_statistics(folder: Path, prefix: str, width: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (("mean", MEAN), ("std", STD)):
        np.save(folder / f"{prefix}{name}.npy", np.full(width, value))
