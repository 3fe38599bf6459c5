"""The field's metrics, as functions of embeddings (Guo et al. 2022).

All distances are Euclidean. Embeddings are ``[N, d]`` arrays; row i of the texts belongs to row i
of the motions.
"""

import numpy as np

from utils.errors import UserError

POOL = 32  # R-Precision is defined on pools of this size


def distance_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``[N, M]`` distances between rows, computed directly so that equal rows give exactly 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def top_k_hits(texts: np.ndarray, motions: np.ndarray, k: int = 3) -> np.ndarray:
    """``[N, k]`` bool: is text i's own motion among its nearest 1, 2, ... k motions?"""
    order = np.argsort(distance_matrix(texts, motions), axis=1)
    hits = order[:, :k] == np.arange(len(order))[:, None]
    return np.cumsum(hits, axis=1) > 0


def r_precision(texts: np.ndarray, motions: np.ndarray, k: int = 3, pool: int = POOL) -> np.ndarray:
    """Top-1 ... top-k shares ``[k]`` over consecutive pools of 32; a smaller rest is dropped.

    Raises UserError when there is not one full pool.
    """
    count = len(texts) // pool
    if count == 0:
        raise UserError(f"R-Precision needs pools of {pool} motions, there are {len(texts)}")
    rows = np.arange(count * pool).reshape(count, pool)
    return np.mean([top_k_hits(texts[r], motions[r], k).mean(axis=0) for r in rows], axis=0)


def matching_score(texts: np.ndarray, motions: np.ndarray) -> float:
    """MM-Dist: mean distance of paired rows."""
    difference = np.asarray(texts, np.float64) - np.asarray(motions, np.float64)
    return float(np.linalg.norm(difference, axis=1).mean())


def fid(real: np.ndarray, generated: np.ndarray, allow_singular: bool = False) -> float:
    """Frechet distance of two Gaussians fitted to ``[N, d]`` and ``[M, d]``, in float64.

    |mu1 - mu2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2); the last trace is the sum of the square
    roots of the eigenvalues of the symmetric product C1^(1/2) C2 C1^(1/2), so that rounding never
    makes it complex. Raises UserError when there are fewer samples than dimensions (the
    covariance is then singular), unless `allow_singular`, and for non-finite values.
    """
    sets = [np.asarray(x, np.float64) for x in (real, generated)]
    for name, x in zip(("real", "generated"), sets, strict=True):
        if not np.isfinite(x).all():
            raise UserError(f"FID: the {name} embeddings hold NaN or infinite values")
        if len(x) <= x.shape[1] and not allow_singular:
            raise UserError(
                f"FID of {x.shape[1]} dimensions needs more than {x.shape[1]} motions, "
                f"the {name} set has {len(x)}; use a larger split"
            )
    (mean1, cov1), (mean2, cov2) = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in sets)
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov2 @ root).clip(min=0)).sum()
    shift = np.square(mean1 - mean2).sum()
    distance = shift + np.trace(cov1) + np.trace(cov2) - 2 * cross
    return max(0.0, float(distance))  # rounding alone takes that of equal sets below zero


def diversity(
    embeddings: np.ndarray, times: int = 300, rng: np.random.RandomState | None = None
) -> float:
    """Mean distance of `times` random pairs (two draws without replacement).

    Raises UserError unless there are more than `times` embeddings.
    """
    if len(embeddings) <= times:
        raise UserError(
            f"Diversity of {times} pairs needs more than {times} motions, "
            f"there are {len(embeddings)}"
        )
    rng = rng or np.random.RandomState()
    first = rng.choice(len(embeddings), times, replace=False)
    second = rng.choice(len(embeddings), times, replace=False)
    return matching_score(embeddings[first], embeddings[second])


def multimodality(
    embeddings: np.ndarray, times: int = 10, rng: np.random.RandomState | None = None
) -> float:
    """Mean distance between repeats of one caption: ``[captions, repeats, d]``.

    Raises UserError unless there are more than `times` repeats.
    """
    if embeddings.shape[1] <= times:
        raise UserError(
            f"MultiModality of {times} pairs needs more than {times} repeats, "
            f"there are {embeddings.shape[1]}"
        )
    rng = rng or np.random.RandomState()
    first = rng.choice(embeddings.shape[1], times, replace=False)
    second = rng.choice(embeddings.shape[1], times, replace=False)
    difference = np.asarray(embeddings[:, first], np.float64) - embeddings[:, second]
    return float(np.linalg.norm(difference, axis=2).mean())
