"""How well a retrieval model finds the motions of a val split: what its training validates."""

import torch

from data_loaders.humanml import MotionDataset
from rewards.retrieval import RetrievalModel
from tmr.retrieval import retrieval_in_pools
from train.data import fixed_batches


@torch.no_grad()
def retrieval_score(model: RetrievalModel, val_data: MotionDataset, pool: int) -> dict[str, float]:
    """R@1 and R@3 of texts among `pool` motions of distinct meanings; ``score`` = 1 - R@1."""
    texts, motions, captions = [], [], []
    for batch in fixed_batches(val_data, 64):
        batch = batch.to(model.device)
        motions.append(model.encode_motions(batch.motion, batch.lengths))
        texts.append(model.encode_texts(batch.captions))
        captions += batch.captions
    figures = retrieval_in_pools(
        torch.cat(texts),
        torch.cat(motions),
        val_data.meanings(captions),
        pool_size=pool,
        smallest=pool,
    )
    return {"score": 1 - figures.r_at_1, "R@1": figures.r_at_1, "R@3": figures.r_at_3}
