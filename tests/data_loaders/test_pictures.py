"""Datasets of pictures in their layouts: the same rows, and bad ones named and counted."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from data_loaders.images.dataset import PictureDataset, PictureOptions, open_pictures
from data_loaders.images.layouts import METADATA
from utils.errors import UserError

Image = pytest.importorskip("PIL.Image")
RED, BLUE = (255, 0, 0), (0, 0, 255)


def png(colour: tuple[int, ...], size: tuple[int, int] = (16, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def opened(folder: Path, split: str = "train", **changes) -> PictureDataset:
    return open_pictures(PictureOptions(data_dir=str(folder), **changes), split, 16)


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows))


def test_image_folders_have_splits_captions_and_losers(tmp_path: Path) -> None:
    for split, colour in (("train", RED), ("validation", BLUE)):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.png").write_bytes(png(colour))
        (tmp_path / split / "b.png").write_bytes(png(BLUE))
        row = {"file_name": "a.png", "text": "a wall", "title": "Wall", "loser": "b.png"}
        write_lines(tmp_path / split / METADATA, [row])
    train, val = opened(tmp_path), opened(tmp_path, "validation")
    assert train.pixels(train.rows).shape == (1, 3, 16, 16)
    assert train.pixels(train.rows)[0, :, 0, 0].tolist() == [1, 0, 0]
    assert train.losers(train.rows)[0, :, 0, 0].tolist() == [0, 0, 1]
    assert val.pixels(val.rows)[0, :, 0, 0].tolist() == [0, 0, 1]
    assert train.captions() == ["a wall"]
    assert opened(tmp_path, caption_column="title").captions() == ["Wall"]


def test_bad_rows_are_named_and_counted(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(png(RED))
    (tmp_path / "tiny.png").write_bytes(png(RED, (7, 40)))
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    names = ["good.png", "tiny.png", "broken.png", "missing.png", "good.png"]
    rows = [{"file_name": name, "text": "a wall"} for name in names]
    write_lines(tmp_path / METADATA, [*rows, {"file_name": "good.png"}])
    with open(tmp_path / METADATA, "a") as file:
        file.write('\n{"file_name": "good.png", "text": " "}\nno json')
    data = opened(tmp_path)
    assert len(data) == 2
    reasons = {bad.name: bad.reason for bad in data.bad}
    assert reasons["tiny.png"] == "7 x 40 pixels are too few for 16"
    assert reasons["broken.png"] == "no readable picture"
    assert reasons[f"{METADATA} line 6"] == "no 'text'"
    assert reasons[f"{METADATA} line 7"] == "an empty caption"
    assert reasons[f"{METADATA} line 8"] == "no JSON object"
    assert "6 rows left out" in data.report()
    assert "and 3 more" in data.report()


def test_text_files_beside_pictures(tmp_path: Path) -> None:
    for index, colour in enumerate((RED, BLUE)):
        (tmp_path / f"{index:03d}.png").write_bytes(png(colour, (32, 20)))
    (tmp_path / "000.txt").write_text("a red wall\n")
    data = opened(tmp_path)
    assert [row.caption for row in data.rows] == ["a red wall"]
    assert [bad.reason for bad in data.bad] == ["no 001.txt"]


def test_pickapic_winners_by_label_and_no_ties(tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    labels = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    columns = {
        "caption": ["a wall"] * 3,
        "jpg_0": [png(RED)] * 3,
        "jpg_1": [png(BLUE)] * 3,
        "label_0": [first for first, _ in labels],
        "label_1": [second for _, second in labels],
    }
    parquet.write_table(arrow.table(columns), tmp_path / "train-00000.parquet", row_group_size=2)
    data = opened(tmp_path)
    assert [data.pixels([row])[0, 0, 0, 0].item() for row in data.rows] == [1, 0]
    assert [data.losers([row])[0, 0, 0, 0].item() for row in data.rows] == [0, 1]
    assert [bad.reason for bad in data.bad] == ["a tie"]
    assert len({row.key for row in data.rows}) == 2
    del columns["jpg_1"]
    parquet.write_table(arrow.table(columns), tmp_path / "train-00000.parquet")
    with pytest.raises(UserError, match="not Pick-a-Pic: it has no column jpg_1"):
        opened(tmp_path)


def test_hpd_by_preference_and_by_rank(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for name, colour in (("r.png", RED), ("b.png", BLUE)):
            (tmp_path / split / name).write_bytes(png(colour))
    pair = {"prompt": "a wall", "file_path": ["b.png", "r.png"]}
    train = [
        pair | {"human_preference": [0, 1]},
        pair | {"human_preference": [0, 0]},
        {"prompt": ""},
    ]
    (tmp_path / "train.json").write_text(json.dumps(train))
    test = [{"prompt": "a wall", "image_path": ["r.png", "b.png"], "rank": [2, 1]}]
    (tmp_path / "test.json").write_text(json.dumps(test))
    data = opened(tmp_path)
    assert data.pixels(data.rows)[0, :, 0, 0].tolist() == [1, 0, 0]
    assert data.losers(data.rows)[0, :, 0, 0].tolist() == [0, 0, 1]
    assert [bad.reason for bad in data.bad] == ["a tie", "no prompt with pictures and a preference"]
    ranked = opened(tmp_path, "test")
    assert ranked.pixels(ranked.rows)[0, :, 0, 0].tolist() == [0, 0, 1]


def test_folders_without_captions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        opened(tmp_path / "missing")
    (tmp_path / "a.png").write_bytes(png(RED))
    with pytest.raises(UserError, match="holds no captions"):
        opened(tmp_path)
    with pytest.raises(UserError, match="has no validation split"):
        opened(tmp_path, "validation")
    write_lines(tmp_path / METADATA, [{"file_name": "b.png", "text": "a wall"}])
    with pytest.raises(UserError, match="nothing of it can be used"):
        opened(tmp_path)


def test_a_picture_damaged_behind_its_header_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue()[:3000])
    write_lines(tmp_path / METADATA, [{"file_name": "a.png", "text": "a wall"}])
    data = opened(tmp_path)
    with pytest.raises(UserError, match=r"a\.png is damaged"):
        data.pixels(data.rows)
