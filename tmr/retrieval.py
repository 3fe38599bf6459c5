"""Text-motion retrieval: TMR's metrics, and pools of distinct meanings.

A rank is the 0-based number of strictly closer items; tied items share their mean position.
"""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

TOP_K = (1, 2, 3, 5, 10)
SMALLEST_POOL = 8


def similarity_matrix(texts: Tensor, motions: Tensor) -> np.ndarray:
    """Cosines ``[N, M]`` of latents, rows = texts."""
    return (F.normalize(texts, dim=-1) @ F.normalize(motions, dim=-1).T).cpu().numpy()


def tied_ranks(similarities: np.ndarray, correct: np.ndarray | None = None) -> np.ndarray:
    """Rank ``[N]`` of the best correct item per row of ``[N, M]``; by default the diagonal's."""
    if correct is None:
        correct = np.eye(*similarities.shape, dtype=bool)
    best = np.where(correct, similarities, -np.inf).max(axis=1, keepdims=True)
    closer = (similarities > best).sum(axis=1)
    tied = (similarities == best).sum(axis=1)
    return closer + (tied - 1) / 2


def metrics_of_ranks(ranks: np.ndarray, prefix: str) -> dict[str, float]:
    """MedR and R@k in percent."""
    figures = {f"{prefix}/MedR": float(np.median(ranks)) + 1}
    for k in TOP_K:
        figures[f"{prefix}/R{k:02d}"] = 100 * float((ranks < k).mean())
    return figures


def retrieval_metrics(
    similarities: np.ndarray, correct: np.ndarray | None = None, digits: int | None = 2
) -> dict[str, float]:
    """Both directions of a square matrix, rows = texts. `correct` marks further right answers."""
    figures = metrics_of_ranks(tied_ranks(similarities, correct), "t2m")
    figures |= metrics_of_ranks(tied_ranks(similarities.T, correct), "m2t")
    return figures if digits is None else {k: round(v, digits) for k, v in figures.items()}


@dataclass(frozen=True)
class PoolFigures:
    """Shares in [0, 1] of `queries` texts that find their motion among the first k, and chance."""

    r_at_1: float
    r_at_2: float
    r_at_3: float
    chance: float
    queries: int


def retrieval_in_pools(
    texts: Tensor,
    motions: Tensor,
    meanings: list[str],
    families: list[str] | None = None,
    pool_size: int | None = 32,
    draws: int = 5,
    seed: int = 0,
    smallest: int = SMALLEST_POOL,
) -> PoolFigures:
    """Text-to-motion retrieval among motions whose captions state other things.

    texts, motions: latents ``[N, d]``, row i belongs to row i. For every text a pool holds its own
    motion and ``pool_size - 1`` others of pairwise distinct meanings (`draws` pools each). With
    `families` the others share the text's family (hard pools; smaller where the family has fewer
    meanings). Texts with a pool of fewer than `smallest` are not asked. ``pool_size=None``: all
    motions of other meanings. Raises ValueError when no text has a pool.
    """
    similarities = similarity_matrix(texts, motions)
    meaning = np.unique(meanings, return_inverse=True)[1]
    family = None if families is None else np.unique(families, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    ranks: list[float] = []
    sizes: list[int] = []
    for query in range(len(similarities)):
        others = meaning != meaning[query]
        if family is not None:
            others &= family == family[query]
        candidates = np.flatnonzero(others)
        for _ in range(1 if pool_size is None else draws):
            pool = candidates
            if pool_size is not None:
                pool = _distinct(rng.permutation(candidates), meaning)[: pool_size - 1]
            if len(pool) + 1 < smallest:
                break
            row = similarities[query, [query, *pool]]
            ranks.append(float(tied_ranks(row[None], np.arange(len(row))[None] == 0)[0]))
            sizes.append(len(row))
    if not ranks:
        raise ValueError("no caption has enough others of distinct meaning for a pool")
    shares = [float((np.array(ranks) < k).mean()) for k in (1, 2, 3)]
    queries = len(ranks) // (1 if pool_size is None else draws)
    return PoolFigures(*shares, chance=float((1 / np.array(sizes)).mean()), queries=queries)


def _distinct(items: np.ndarray, meaning: np.ndarray) -> np.ndarray:
    """The first item of every meaning, in order."""
    return items[np.sort(np.unique(meaning[items], return_index=True)[1])]
