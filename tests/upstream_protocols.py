"""What upstream's programs do and this project has no use for, as golden numbers hold it."""

import numpy as np
import torch
from torch import Tensor

from data_loaders.captions import parse_captions
from data_loaders.humanml import Entry
from tmr.retrieval import retrieval_metrics


def text_only_entries(texts: dict[str, str], ids: list[str]) -> list[Entry]:
    """Entries for prompts alone: no motion is read and no length is required."""
    entries: list[Entry] = []
    for name in ids:
        captions = parse_captions(texts.get(name, ""))[0]
        parts = [c for c in captions if not c.whole_clip]
        entries += [Entry(f"{name}_part{i}", 0, 0, (c,), True) for i, c in enumerate(parts)]
        whole = tuple(c for c in captions if c.whole_clip)
        if whole:
            entries.append(Entry(name, 0, 0, whole))
    return entries


def step_probability(steps: int) -> Tensor:
    """How often each of `steps` steps is drawn for a noised batch ``[steps]``, in float64.

    The first tenth weighs 0.8 / steps each and the rest 0.2 / (steps - 101), before both are
    divided by their sum: of 1000 steps, 29 % are drawn from the first hundred.
    """
    weights = torch.full((steps,), 0.2 / (steps - 101), dtype=torch.float64)
    weights[: -(-steps // 10)] = 0.8 / steps
    return weights / weights.sum()


def batched_metrics(similarities: np.ndarray, batches: np.ndarray) -> dict[str, float]:
    """Mean of the metrics over square sub-matrices, one per row of indices (protocol ``guo``)."""
    parts = [retrieval_metrics(similarities[np.ix_(b, b)], digits=None) for b in batches]
    return {name: round(float(np.mean([p[name] for p in parts])), 2) for name in parts[0]}


def guo_batches(count: int, size: int = 32) -> np.ndarray:
    """Indices of the full batches of `size` after a shuffle with NumPy seed 0."""
    order = np.arange(count)
    np.random.RandomState(0).shuffle(order)
    return order[: count // size * size].reshape(-1, size)
