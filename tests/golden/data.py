"""The loader's rules on a synthetic dataset, against upstream's numbers."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from data_loaders.captions import pad_sentence
from data_loaders.humanml import (
    DatasetFolder,
    Draw,
    MotionDataset,
    build_entries,
    collate,
    unit_length,
)
from data_loaders.normalizer import Statistics
from data_loaders.packing import load_packed
from data_loaders.skeleton import HUMANML, KIT
from tests.golden.base import Golden, Row, covers
from tests.upstream_protocols import text_only_entries
from utils.masks import length_mask


def write_files(g: Golden, folder: Path, width: int) -> None:
    """The dataset that the file describes: motion_i[t, j] = 0.01 (i + 1) t + 0.001 j."""
    for part in ("new_joint_vecs", "texts"):
        (folder / part).mkdir()
    names, lengths = g.strings("files/names"), g["files/lengths"].tolist()
    for i, (name, length) in enumerate(zip(names, lengths, strict=True)):
        t, j = np.arange(length)[:, None], np.arange(width)[None]
        motion = (0.01 * (i + 1) * t + 0.001 * j).astype(np.float32)
        np.save(folder / "new_joint_vecs" / f"{name}.npy", motion)
        text = g.scalar(f"texts/{i}")
        if text:
            (folder / "texts" / f"{name}.txt").write_text(text, encoding="utf-8")


@covers("humanml3d_loader*.npz")
def loader(g: Golden) -> Iterator[Row]:
    skeleton = KIT if g.scalar("dataset_name") == "kit" else HUMANML
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_files(g, folder, skeleton.feature_dim)
        packed = load_packed(folder, skeleton.feature_dim)
        ids = g.strings("split_file")
        entries, _ = build_entries(packed, ids, skeleton)
        stats = Statistics("dataset_stats", g.tensor("mean"), g.tensor("std"))
        data = MotionDataset(
            DatasetFolder("golden", folder, skeleton), packed, entries, stats, None
        )
        yield from entry_rows(g, data)
        yield from item_rows(g, data)
        yield from collate_rows(g, data)
        only = text_only_entries(packed.texts, ids)
        yield g.equal(
            "text_only/base_name", [e.name.split("_")[0] for e in only], g["text_only/base_name"]
        )
        yield g.equal("text_only/captions", joined(only), g["text_only/captions"])
        del data, packed  # the memory map must go before its file


def joined(entries: list) -> list[str]:
    return ["|".join(c.text for c in e.captions) for e in entries]


def entry_rows(g: Golden, data: MotionDataset) -> Iterator[Row]:
    entries = data.entries
    yield g.equal(
        "entries/base_name", [e.name.split("_")[0] for e in entries], g["entries/base_name"]
    )
    yield g.equal("entries/is_subclip", [e.is_subclip for e in entries], g["entries/is_subclip"])
    yield g.equal("entries/length", [e.length for e in entries], g["entries/length"])
    yield g.equal("entries/captions", joined(entries), g["entries/captions"])
    first = np.array([float(data.raw(e)[0, 0]) for e in entries])
    yield g.close("entries/first_frame_col0", first, g["entries/first_frame_col0"], atol=1e-6)


def items(data: MotionDataset, single: bool, last: bool) -> list:
    found = []
    for entry in data.entries:
        length = unit_length(entry.length, single)
        found.append((entry, Draw(0, length, entry.length - length if last else 0)))
    return found


def item_rows(g: Golden, data: MotionDataset) -> Iterator[Row]:
    columns = g["items/columns"].tolist()
    frames = g["items/single_first/motion"].shape[1]
    for name in ("single_first", "single_last", "double_first", "double_last"):
        batch = collate(data, items(data, "single" in name, "last" in name), frames)
        yield g.close(
            f"items/{name}/motion",
            batch.normalized(data.stats)[:, :, columns],
            g[f"items/{name}/motion"],
            atol=1e-6,
        )
        yield g.equal(f"items/{name}/length", batch.lengths, g[f"items/{name}/length"])
    sentences = [pad_sentence(e.captions[0].tokens) for e in data.entries]
    yield g.equal("items/caption", [e.captions[0].text for e in data.entries], g["items/caption"])
    yield g.equal("items/sent_len", [n for _, n in sentences], g["items/sent_len"])
    yield g.equal(
        "items/joined_tokens", ["_".join(t) for t, _ in sentences], g["items/joined_tokens"]
    )


def collate_rows(g: Golden, data: MotionDataset) -> Iterator[Row]:
    """A short batch is filled by repeating its items, as upstream's collate does."""
    frames = g["items/single_first/motion"].shape[1]
    rows, size = g["collate/batch_items"].tolist(), g.scalar("collate/target_batch_size")
    every = items(data, single=False, last=True)
    chosen = [every[rows[i % len(rows)]] for i in range(size)]
    batch = collate(data, chosen, frames)
    upstream = batch.normalized(data.stats).transpose(1, 2).unsqueeze(2)
    yield g.equal("collate/motion_shape", list(upstream.shape), g["collate/motion_shape"])
    yield g.close(
        "collate/motion_columns",
        upstream[:, g["items/columns"].tolist()],
        g["collate/motion_columns"],
        atol=1e-6,
    )
    yield g.equal(
        "collate/mask", length_mask(batch.lengths, frames).view(size, 1, 1, -1), g["collate/mask"]
    )
    yield g.equal("collate/lengths", batch.lengths, g["collate/lengths"])
    yield g.equal("collate/text", batch.captions, g["collate/text"])
    lengths = torch.tensor([pad_sentence(e.captions[0].tokens)[1] for e, _ in every])
    order = torch.sort(lengths, descending=True, stable=True).indices.tolist()
    yield g.equal("gt_collate/sent_len", lengths[order], g["gt_collate/sent_len"])
    yield g.equal(
        "gt_collate/caption", [every[i][0].captions[0].text for i in order], g["gt_collate/caption"]
    )
    yield g.equal("gt_collate/length", [every[i][1].length for i in order], g["gt_collate/length"])
