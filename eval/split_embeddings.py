"""A split as the evaluators see it: every caption and every crop is embedded once.

The protocol walks the ground truth twice per replication and crops and captions it anew each time,
but an item has only some 13 crops and 3 captions, so that 20 replications repeat all of them.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.humanml import (
    Draw,
    Entry,
    MotionBatch,
    MotionDataset,
    collate,
    make_loader,
    unit_length,
)
from data_loaders.normalizer import Statistics
from eval.metrics import POOL
from eval.protocol import Embeddings
from rewards.co_embedding import CoEmbedder

BATCH = 256


class SplitEmbeddings:
    """Looks up the embeddings of whatever `pools` draws."""

    def __init__(self, data: MotionDataset, embedder: CoEmbedder) -> None:
        self.data = data
        self._items = _frame_numbers(data)
        tokens = dict.fromkeys(c.tokens for entry in data.entries for c in entry.captions)
        self._text_row = {t: row for row, t in enumerate(tokens)}
        self._texts = _embed_texts(embedder, list(tokens))
        crops = [crop for entry in data.entries for crop in _crops(entry)]
        keys = [(entry.start + draw.first, draw.length) for entry, draw in crops]
        self._motion_row = {key: row for row, key in enumerate(keys)}
        self._motions = _embed_crops(data, embedder, crops)

    def pools(self, seed: int, walk: int) -> Iterator[MotionBatch]:
        """One shuffled pass in full batches of 32; their `motion` holds frame numbers only."""
        return make_loader(
            self._items,
            POOL,
            shuffle=True,
            seed=seed,
            epoch=walk,
            drop_last=True,
            pad_to=self.data.skeleton.max_length,
        )

    def texts(self, tokens: list[tuple[str, ...]]) -> Tensor:
        """``word/POS`` tokens of B captions of the split to ``[B, d]``."""
        return self._texts[[self._text_row[t] for t in tokens]]

    def motions(self, batch: MotionBatch) -> Tensor:
        """The real motions of a batch of `pools`: ``[B, d]``."""
        starts = batch.motion[:, 0, 0].long().tolist()
        keys = zip(starts, batch.lengths.tolist(), strict=True)
        return self._motions[[self._motion_row[key] for key in keys]]

    def walk(self, seed: int, walk: int) -> Embeddings:
        """The whole split, cropped, captioned and shuffled anew in every walk."""
        batches = list(self.pools(seed, walk))
        return Embeddings(
            torch.cat([self.texts(batch.tokens) for batch in batches]).numpy(),
            torch.cat([self.motions(batch) for batch in batches]).numpy(),
            meanings=self.meanings([c for batch in batches for c in batch.captions]),
        )

    def meanings(self, captions: list[str]) -> list[str] | None:
        """What the captions state; None for datasets without annotations, whose R-Precision is
        that of the published tables."""
        return self.data.meanings(captions) if self.data.annotations else None


def _frame_numbers(data: MotionDataset) -> MotionDataset:
    """`data` with one feature, the number of the frame in the packed file.

    So the loader tells which crop it drew, and no features are read for it. Numbers up to 2^24 are
    exact in float32, more than four times the frames of HumanML3D.
    """
    rows = torch.arange(len(data.packed.rows)).unsqueeze(1)
    stats = Statistics("frame_numbers", torch.zeros(1), torch.ones(1))
    packed = replace(data.packed, rows=rows)
    return MotionDataset(data.folder, packed, data.entries, stats, data.annotations)


def _crops(entry: Entry) -> Iterator[tuple[Entry, Draw]]:
    """Every crop that the loader can draw of a clip."""
    for single in (True, False):
        length = unit_length(entry.length, single)
        for first in range(entry.length - length + 1):
            yield entry, Draw(0, length, first)


def _embed_texts(embedder: CoEmbedder, tokens: list[tuple[str, ...]]) -> Tensor:
    parts = [tokens[i : i + BATCH] for i in range(0, len(tokens), BATCH)]
    return torch.cat([embedder.embed_texts(part) for part in parts])


def _embed_crops(
    data: MotionDataset, embedder: CoEmbedder, crops: list[tuple[Entry, Draw]]
) -> Tensor:
    """Zero-padded after normalisation to the full length, as upstream's loader does."""
    found = []
    for i in tqdm(range(0, len(crops), BATCH), desc="real motions"):
        batch = collate(data, crops[i : i + BATCH], data.skeleton.max_length)
        found.append(embedder.embed_motions(batch.normalized(embedder.stats), batch.lengths))
    return torch.cat(found)
