"""The benchmark's metrics against upstream's numbers."""

from collections.abc import Iterator

import numpy as np

from eval.metrics import (
    distance_matrix,
    diversity,
    fid,
    matching_score,
    multimodality,
    r_precision,
    top_k_hits,
)
from tests.golden.base import Golden, Row, covers


def seeded(g: Golden, key: str) -> np.random.RandomState:
    return np.random.RandomState(g.scalar(key))


@covers("metrics*.npz")
def metrics(g: Golden) -> Iterator[Row]:
    text, motion = g["text"], g["motion"]
    distances = distance_matrix(text, motion)
    yield g.close("distance_matrix", distances, g["distance_matrix"], atol=1e-4)
    yield g.equal("argsort", np.argsort(distances, axis=1), g["argsort"])
    hits = top_k_hits(text, motion, g["top_k_mat"].shape[1])
    yield g.equal("top_k_mat", hits, g["top_k_mat"])
    yield g.equal("R_precision_top3_sum", hits.sum(axis=0), g["R_precision_top3_sum"])
    each = np.linalg.norm(text.astype(np.float64) - motion, axis=1)
    yield g.close("matching_score_each", each, g["matching_score_each"], atol=1e-4)
    yield g.close("matching_score_sum", each.sum(), g["matching_score_sum"], rtol=1e-5)
    text, motion = g["batches/text"], g["batches/motion"]
    yield g.close(
        "batches/R_precision", r_precision(text, motion), g["batches/R_precision"], atol=1e-9
    )
    yield g.close(
        "batches/R_precision_if_one_pool",
        r_precision(text, motion, pool=len(text)),
        g["batches/R_precision_if_one_pool"],
        atol=1e-9,
    )
    yield g.close(
        "batches/matching_score",
        matching_score(text, motion),
        g["batches/matching_score"],
        rtol=1e-5,
    )
    real, generated = g["fid/gt_activations"], g["fid/activations"]
    few = g.scalar("fid/n_few")
    yield g.close("fid/value", fid(real, generated), g["fid/value"], rtol=1e-5)
    yield g.close("fid/value_same", fid(real, real), g["fid/value_same"], atol=1e-6)
    yield g.close(
        "fid/value_few",
        fid(real[:few], generated[:few], allow_singular=True),
        g["fid/value_few"],
        rtol=1e-3,
    )
    rng = seeded(g, "diversity/numpy_seed")
    yield g.close(
        "diversity/value",
        diversity(real, g.scalar("diversity/times"), rng),
        g["diversity/value"],
        rtol=1e-5,
    )
    rng = seeded(g, "multimodality/numpy_seed")
    yield g.close(
        "multimodality/value",
        multimodality(g["multimodality/activations"], g.scalar("multimodality/times"), rng),
        g["multimodality/value"],
        rtol=1e-5,
    )
