import csv
from pathlib import Path

import pytest

from prepare.bvh.caption_table import FileCaptions, read_split_file
from prepare.bvh.splits import SplitOptions, assign_splits
from prepare.write_dataset import NotedCaption
from utils.errors import UserError

ROOT = Path("takes")


def files(count: int, meanings: int = 1000, **splits: str) -> dict[Path, FileCaptions]:
    """`count` files of so many meanings; those named in `splits` say their own in the table."""
    found = {}
    for number in range(count):
        caption = NotedCaption.of(f"a person walks along path {number % meanings}")
        split = splits.get(f"walk{number}", "")
        found[ROOT / f"walk{number}.bvh"] = FileCaptions([caption], split=split)
    return found


def sizes(count: int, given: dict[str, str] | None = None, **options) -> tuple[int, int, int]:
    found = assign_splits(files(count, **(given or {})), SplitOptions(**options), ROOT)
    assert len(found) == count
    train, val, test = (list(found.values()).count(split) for split in ("train", "val", "test"))
    return train, val, test


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        *[(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (4, (2, 1, 1)), (5, (2, 2, 1))],
        *[(6, (3, 2, 1)), (12, (8, 2, 2)), (40, (32, 2, 6)), (100, (80, 5, 15))],
    ],
)
def test_few_files_fill_training_then_validation_then_testing(count, expected):
    assert sizes(count) == expected


def test_large_shares_leave_a_file_for_training():
    assert sizes(2, val_share=0.5, test_share=0.49) == (1, 1, 0)
    assert sizes(3, val_share=0.05, test_share=0.9) == (1, 1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_two_files_that_validate_mean_different_things_where_any_do(seed):
    captions = files(12, meanings=2)
    splits = assign_splits(captions, SplitOptions(split_seed=seed), ROOT)
    first, second = (captions[path].meaning() for path, split in splits.items() if split == "val")
    assert first != second
    alike = assign_splits(files(12, meanings=1), SplitOptions(split_seed=seed), ROOT)
    assert list(alike.values()).count("val") == 2


def test_a_share_of_zero_is_none():
    assert sizes(6, val_share=0.0) == (5, 0, 1)
    assert sizes(6, val_share=0.0, test_share=0.0) == (6, 0, 0)


def test_given_splits_count(tmp_path):
    assert sizes(3, {"walk0": "train"}) == (1, 1, 1)
    assert sizes(4, {"walk0": "val", "walk1": "test"}) == (2, 1, 1)
    path = tmp_path / "splits.csv"
    path.write_text("file,split\nwalk0,val\nwalk2,test\n")
    splits = assign_splits(files(4, walk0="test"), SplitOptions(split_file=str(path)), ROOT)
    named = {file.stem: split for file, split in splits.items()}
    assert named == {"walk0": "val", "walk1": "train", "walk2": "test", "walk3": "train"}


def test_random_splits_depend_on_the_seed_only():
    draws = [assign_splits(files(20), SplitOptions(split_seed=seed), ROOT) for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_an_unknown_split_is_told(tmp_path):
    path = tmp_path / "splits.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["file", "split"], ["walk0", "dev"]])
    with pytest.raises(UserError, match="line 2: split 'dev' is unknown"):
        read_split_file(path)
