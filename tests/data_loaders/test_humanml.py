import os
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import torch

from data_loaders.annotations import Annotations, CaptionNote, ClipNote
from data_loaders.captions import tag_words
from data_loaders.facts import Fact
from data_loaders.humanml import (
    make_loader,
    open_dataset,
    resolve_dataset,
    unit_length,
)
from data_loaders.normalizer import plain_statistics
from data_loaders.skeleton import HUMANML, KIT
from tests.data_loaders.datasets import (
    caption_line,
    clip,
    clip_number,
    write_dataset,
    write_statistics,
)
from tests.upstream_protocols import text_only_entries
from utils.errors import UserError
from utils.files import write_json
from utils.masks import length_mask

LENGTHS = {f"{number:06d}": 40 + 7 * number for number in range(22)}  # 40 to 187


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """22 clips of different lengths; tests must not change it."""
    splits = {"train": list(LENGTHS), "val": ["000003"]}
    return write_dataset(tmp_path_factory.mktemp("clips") / "data", LENGTHS, splits=splits)


@pytest.fixture(scope="session")
def dataset(shared_folder):
    return open_dataset("own", "train", str(shared_folder))


@pytest.fixture
def plain(shared_folder):
    return open_dataset("own", "train", str(shared_folder), random_items=False)


def opened(folder, **settings):
    return open_dataset("own", "train", str(folder), **settings)


def names_of(batches):
    return [name for batch in batches for name in batch.names]


# Which clips and captions there are


@pytest.mark.parametrize(("skeleton", "shortest"), [(HUMANML, 40), (KIT, 24)])
def test_length_rules(tmp_path, skeleton, shortest, capsys):
    lengths = {f"c{n}": n for n in (shortest - 1, shortest, 199, 200)}
    folder = write_dataset(tmp_path / "data", lengths, skeleton=skeleton)
    data = opened(folder)
    assert data.skeleton is skeleton
    assert [entry.length for entry in data.entries] == [shortest, 199]
    warning = capsys.readouterr().out
    assert f"2 x not {shortest} to 199 frames long (c{shortest - 1}, c200)" in warning


def test_entries_go_by_length_and_keep_the_order_of_the_split(tmp_path):
    lengths = {"b": 60, "a": 60, "c": 45}
    assert [e.name for e in opened(write_dataset(tmp_path / "d", lengths)).entries] == [*"cba"]


def test_captions_of_a_part_become_a_clip_of_their_own(tmp_path):
    text = (
        caption_line("all of it")
        + caption_line("the middle", 1.0, 4.5)
        + caption_line("too short", 1.0, 2.9)
        + caption_line("beyond the end", 3.0, 99.0)
        + caption_line("after the end", 30.0, 99.0)
        + caption_line("all of it again")
    )
    data = opened(write_dataset(tmp_path / "d", {"x": 120}, {"x": text}), random_items=False)
    entries = {entry.captions[0].text: entry for entry in data.entries}
    assert set(entries) == {"all of it", "the middle", "beyond the end"}
    assert len({entry.name for entry in data.entries}) == 3
    assert [c.text for c in entries["all of it"].captions] == ["all of it", "all of it again"]
    assert not entries["all of it"].is_subclip
    for caption, first, length in (("the middle", 20, 70), ("beyond the end", 60, 60)):
        entry = entries[caption]
        assert entry.is_subclip
        np.testing.assert_array_equal(data.raw(entry), clip(1, 120)[first : first + length])


def test_a_clip_without_a_caption_of_the_whole_is_only_its_parts(tmp_path):
    folder = write_dataset(tmp_path / "d", {"x": 120}, {"x": caption_line("part", 0.0, 3.0)})
    (entry,) = opened(folder).entries
    assert (entry.is_subclip, entry.length) == (True, 60)


@pytest.mark.parametrize("times", ["-2.0#3.0", "0.0#inf", "nan#-1.0", "-inf#inf"])
def test_impossible_times_never_reach_another_clip(tmp_path, times, capsys):
    line = caption_line("somewhere").replace("0.0#0.0", times)
    text = {"b": caption_line("all") + line}
    data = opened(write_dataset(tmp_path / "d", {"a": 60, "b": 60, "c": 60}, text))
    for entry in data.entries:
        number = "abc".index(entry.name[0]) + 1
        assert {int(row[0] // 1000) for row in data.raw(entry).numpy()} == {number}
    assert "caption lines" in capsys.readouterr().out


def test_phrasings_share_out_the_captions_of_a_clip(tmp_path):
    text = {"x": "".join(caption_line(f"caption {word}") for word in "abcde")}
    folder = write_dataset(tmp_path / "d", {"x": 60, "y": 70}, text | {"y": caption_line("only")})
    chosen = {}
    for phrasings in ("all", "even", "odd"):
        data = opened(folder, phrasings=phrasings)
        chosen[phrasings] = [c.text[-1] for c in data.entries[0].captions]
        assert [c.text for c in data.entries[1].captions] == ["only"]
    assert chosen == {"all": [*"abcde"], "even": [*"ace"], "odd": [*"bd"]}


def test_prompts_alone_need_no_motion():
    texts = {"x": caption_line("whole") + caption_line("part", 0.0, 0.5), "y": caption_line("y")}
    entries = text_only_entries(texts, ["y", "x", "missing"])
    assert [e.captions[0].text for e in entries] == ["y", "part", "whole"]
    assert len({entry.name for entry in entries}) == 3


# Items


def test_lengths_are_multiples_of_four():
    assert [unit_length(n, single=True) for n in (40, 43, 44, 196, 199)] == [40, 40, 44, 196, 196]
    assert [unit_length(n, single=False) for n in (40, 43, 199)] == [36, 36, 192]


def test_without_randomness_items_start_at_the_start_and_are_longest(plain):
    (batch,) = make_loader(plain, 22, shuffle=False)
    for row, length, name, caption in zip(
        batch.motion, batch.lengths.tolist(), batch.names, batch.captions, strict=True
    ):
        number = int(name) + 1
        expected = clip(number, LENGTHS[name])[: LENGTHS[name] // 4 * 4]
        assert length == len(expected)
        np.testing.assert_allclose(row[:length], expected, rtol=1e-6)
        assert row[length:].abs().sum() == 0
        assert caption == f"{name} walks"
    normalised = batch.normalized(plain.stats)  # mean 0, deviation 2
    assert torch.equal(normalised, batch.motion / 2)
    assert batch.tokens == [tuple(tag_words(caption)) for caption in batch.captions]


def test_random_items_are_any_crop_of_two_lengths_and_any_caption(tmp_path):
    data = opened(write_dataset(tmp_path / "d", {"x": 43}))
    seen = Counter()
    for epoch in range(600):
        (batch,) = make_loader(data, 1, shuffle=True, epoch=epoch)
        (length,) = batch.lengths.tolist()
        number, first = clip_number(batch.motion[0, 0])
        assert clip_number(batch.motion[0, length - 1]) == (1, first + length - 1)
        assert number == 1
        seen[length, first] += 1
        seen[batch.captions[0]] += 1
    lengths = {n: sum(seen[n, first] for first in range(8)) for n in (36, 40)}
    assert lengths[36] + lengths[40] == 600
    assert lengths[40] / 600 == pytest.approx(2 / 3, abs=0.06)
    assert all(seen[40, first] > 60 for first in range(4))
    assert all(seen[36, first] > 10 for first in range(8))
    assert seen["x walks"] == pytest.approx(300, abs=50)
    assert seen["x walks"] + seen["x runs to the left"] == 600


def test_padding_to_a_fixed_length(dataset):
    for batch in make_loader(dataset, 4, shuffle=True, pad_to=196):
        assert batch.motion.shape[1:] == (196, 263)
        assert batch.motion[~length_mask(batch.lengths, 196)].abs().sum() == 0


# Batches


def test_every_clip_is_in_an_epoch_once(dataset):
    for pad_to in (None, 196):
        batches = list(make_loader(dataset, 4, shuffle=True, pad_to=pad_to))
        assert sorted(names_of(batches)) == sorted(LENGTHS)
        assert [len(batch.names) for batch in batches] == [4, 4, 4, 4, 4, 2]
    kept = list(make_loader(dataset, 4, shuffle=True, drop_last=True))
    assert [len(batch.names) for batch in kept] == [4] * 5


def test_same_seed_and_epoch_give_the_same_batches(dataset):
    def epoch(**settings):
        return list(make_loader(dataset, 4, shuffle=True, **settings))

    first, again = epoch(seed=3, epoch=2), epoch(seed=3, epoch=2)
    for one, other in zip(first, again, strict=True):
        assert one.names == other.names
        assert one.captions == other.captions
        assert torch.equal(one.motion, other.motion)
    for other in (epoch(seed=3, epoch=1), epoch(seed=2, epoch=2)):
        assert names_of(other) != names_of(first)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("pad_to", [None, 196])
def test_processes_share_out_the_epoch(dataset, pad_to, drop_last):
    settings = {"shuffle": True, "seed": 1, "pad_to": pad_to, "drop_last": drop_last}
    shares = [list(make_loader(dataset, 3, rank=rank, world_size=2, **settings)) for rank in (0, 1)]
    names = [name for share in shares for name in names_of(share)]
    assert len(set(names)) == len(names) == (18 if drop_last else 22)
    if drop_last:  # every process must make the same number of steps
        assert [len(share) for share in shares] == [3, 3]
    alone = names_of(make_loader(dataset, 6, **settings))
    pairs = zip(*shares, strict=drop_last)
    together = [name for pair in pairs for batch in pair for name in batch.names]
    assert alone[: len(together)] == together


def test_shuffled_batches_hold_clips_of_similar_length(tmp_path):
    lengths = {f"{n:06d}": 40 + n for n in range(120)}
    data = opened(write_dataset(tmp_path / "d", lengths), random_items=False)

    def spread(**settings):
        batches = make_loader(data, 10, shuffle=True, **settings)
        return np.mean([np.ptp(batch.lengths.numpy()) for batch in batches])

    assert spread() < 0.4 * spread(pad_to=196)


def test_meanings_and_families_come_from_the_notes(tmp_path):
    folder = write_dataset(tmp_path / "d", {"x": 60, "y": 61})
    assert opened(folder).meanings(["x walks"]) == ["x walks"]
    assert opened(folder).families(["x"]) == [""]
    note = CaptionNote((Fact("travel", "forward"),), "walk")
    Annotations({"x walks": note}, {"y": ClipNote("run")}).save(folder)
    data = opened(folder)
    assert data.meanings(["x walks", "unknown"]) == ["walk", "unknown"]
    assert data.families(["x", "y"]) == ["", "run"]


def test_feature_statistics_are_those_of_the_split(shared_folder, dataset):
    stats = open_dataset("own", "val", str(shared_folder)).feature_stats()
    expected = plain_statistics([clip(4, LENGTHS["000003"])])
    torch.testing.assert_close(stats.mean, expected.mean)
    torch.testing.assert_close(stats.std, expected.std)
    assert stats.eps == 1e-12
    assert (dataset.feature_stats().mean > stats.mean).all()


def test_features_that_never_vary_get_deviation_one(tmp_path):
    folder = write_dataset(tmp_path / "d", {"x": 60})
    motion = clip(1, 60)
    motion[:, 5] = 1.0
    np.save(folder / "new_joint_vecs" / "x.npy", motion)
    assert opened(folder).feature_stats().std[5] == 1.0


# Files that cannot be used


def test_unusable_clips_are_named_once_and_never_drawn(tmp_path, capsys):
    lengths = dict.fromkeys(("good", "corrupt", "empty", "nan", "flat", "mute", "lost"), 60)
    folder = write_dataset(tmp_path / "d", lengths, {"mute": "\n"})
    vectors = folder / "new_joint_vecs"
    (vectors / "corrupt.npy").write_bytes((vectors / "corrupt.npy").read_bytes()[:5000])
    (vectors / "empty.npy").write_bytes(b"")
    motion = clip(4, 60)
    motion[30, 7] = np.nan
    np.save(vectors / "nan.npy", motion)
    np.save(vectors / "flat.npy", np.zeros(263, np.float32))
    (vectors / "lost.npy").unlink()
    data = opened(folder)
    warning = capsys.readouterr().out
    assert warning.count("\n") == 1
    for part in (
        "2 x unreadable file (corrupt, empty)",
        "1 x NaN or infinite values (nan)",
        "1 x shape [263] instead of [T, 263] (flat)",
        "1 x no captions (mute)",
        "1 x no motion file (lost)",
    ):
        assert part in warning
    for epoch in range(5):
        (batch,) = make_loader(data, 10, shuffle=True, epoch=epoch)
        assert batch.names == ["good"]
        assert torch.isfinite(batch.motion).all()


def test_good_folders_give_no_warning(shared_folder, capsys):
    opened(shared_folder)
    assert capsys.readouterr().out == ""


def test_changed_files_are_seen_by_the_next_start(tmp_path):
    folder = write_dataset(tmp_path / "d", {"x": 60})
    assert opened(folder).entries[0].length == 60
    np.save(folder / "new_joint_vecs" / "x.npy", clip(8, 64))
    (folder / "texts" / "x.txt").write_text(caption_line("x crawls"))
    data = opened(folder, random_items=False)
    (batch,) = make_loader(data, 1, shuffle=False)
    assert batch.captions == ["x crawls"]
    assert clip_number(batch.motion[0, 63]) == (8, 63)


def test_missing_and_empty_folders_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"dataset unheard: folder dataset/unheard does not exist"):
        resolve_dataset("unheard")
    with pytest.raises(UserError, match=r"nowhere does not exist; .*--data_dir"):
        resolve_dataset("humanml", str(tmp_path / "nowhere"))
    (tmp_path / "dataset" / "KIT-ML").mkdir(parents=True)
    with pytest.raises(UserError, match="dataset kit: folder dataset/KIT-ML is empty"):
        resolve_dataset("kit")


def test_known_names_have_known_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "dataset" / "HumanML3D", {"x": 60})
    assert resolve_dataset("humanml").skeleton is HUMANML
    write_dataset(tmp_path / "dataset" / "mine", {"x": 60}, skeleton=KIT)
    assert resolve_dataset("mine").skeleton is KIT


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "train.txt").unlink(), r"train.txt does not exist \(splits there: .*val"),
        (lambda d: (d / "train.txt").write_text(""), r"no usable clip in split train.*\(0 ids"),
        (lambda d: (d / "texts" / "x.txt").write_text("no fields\n"), "no usable clip"),
        (lambda d: (d / "Std.npy").unlink(), "Std.npy does not exist"),
        (lambda d: shutil.rmtree(d / "texts"), "texts does not exist"),
        (lambda d: write_statistics(d, 100), "no skeleton has 100 features"),
        (lambda d: write_json(d / "dataset.json", {"skeleton": "dog"}), "skeleton 'dog'"),
        (lambda d: write_json(d / "dataset.json", {"skeleton": "kit"}), "no usable clip"),
    ],
)
def test_incomplete_folders_are_told(tmp_path, damage, message):
    folder = write_dataset(tmp_path / "d", {"x": 60})
    damage(folder)
    with pytest.raises(UserError, match=message):
        opened(folder)


def test_statistics_of_another_skeleton_are_told(tmp_path):
    folder = write_dataset(tmp_path / "d", {"x": 60})
    write_json(folder / "dataset.json", {"skeleton": "humanml"})
    write_statistics(folder, 251)
    with pytest.raises(UserError, match=r"Mean.npy has 251 features; the humanml skeleton has 263"):
        opened(folder)


# Size


@pytest.mark.slow
def test_a_start_with_many_clips_takes_seconds(tmp_path):
    count = 25_000
    folder = write_dataset(tmp_path / "d", {"x": 24}, skeleton=KIT)
    names = [f"{number:06d}" for number in range(count)]
    for part, suffix in (("new_joint_vecs", "npy"), ("texts", "txt")):
        for name in names:  # one file under many names saves the disk
            os.link(folder / part / f"x.{suffix}", folder / part / f"{name}.{suffix}")
    (folder / "train.txt").write_text("\n".join(names))
    assert len(opened(folder)) == count
    start = time.perf_counter()
    data = opened(folder)
    next(make_loader(data, 64, shuffle=True))
    elapsed = time.perf_counter() - start
    (folder / "packed.safetensors").unlink()
    assert elapsed < 5


@pytest.mark.parametrize("content", ["0", "[]", '{"skeleton": ["kit"]}', '{"skeleton": null}'])
def test_a_dataset_file_that_holds_something_else_is_told(tmp_path, content):
    folder = write_dataset(tmp_path / "data", {"000000": 40})
    (folder / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=r"dataset\.json"):
        open_dataset("own", "train", str(folder))


def test_a_split_file_that_is_no_text_is_told(tmp_path):
    folder = write_dataset(tmp_path / "data", {"000000": 40})
    (folder / "train.txt").write_bytes(b"000000\n\xff\xfe")
    with pytest.raises(UserError, match=r"train\.txt is no readable list"):
        open_dataset("own", "train", str(folder))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("runs##0.0#1e308", "is not a time in a clip"),
        ("runs##1e308#1e308", "is not a time in a clip"),
        ("runs##-inf#0", "is not a time in a clip"),
        (f"{200_000 * 'runs '}##0#0", "longer than 1000 characters"),
    ],
)
def test_absurd_caption_lines_are_left_out(tmp_path, capsys, line, reason):
    captions = {"000000": f"000000 walks##0.0#0.0\n{line}\n"}
    folder = write_dataset(tmp_path / "data", {"000000": 40}, captions)
    data = open_dataset("own", "train", str(folder))
    assert list(data.captions()) == ["000000 walks"]
    assert reason in capsys.readouterr().out
