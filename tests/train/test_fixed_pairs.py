"""Stored pairs: what is read is what was written, for the right caption, or one clear line."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_loaders.captions import Caption
from data_loaders.humanml import DatasetFolder, Entry, MotionDataset
from data_loaders.skeleton import HUMANML, KIT
from model.seam import Samples
from tests.model.tiny import tiny_generator, tiny_stats
from tests.train.fakes import (
    CAPTIONS,
    KEYS,
    LENGTHS,
    FirstFeature,
    make_batch,
    make_condition,
    make_winners,
)
from tests.train.stored_pairs import EXTRA, REWARDS, raw_candidates, write_pairs
from train.preference.fixed_pairs import FixedPairs, PairIndex, PairStore, shard_path
from train.preference.methods import METHODS
from utils.errors import UserError

BEST, WORST = REWARDS.argmax(dim=1), REWARDS.argmin(dim=1)
ROWS = torch.arange(4)


@pytest.fixture
def folder(tmp_path):
    return write_pairs(tmp_path / "pairs")


def draw(folder, method: str, **changes):
    policy, batch = tiny_generator(KIT, **changes), make_batch()
    pairs = FixedPairs(policy, FirstFeature(), PairStore(folder), METHODS[method][0])
    winners = policy.encode(Samples(batch.motion, batch.lengths))
    return pairs(winners, KEYS, make_condition(), None)


def dataset_of(folder, captions=CAPTIONS, extra: int = EXTRA, skeleton=KIT) -> MotionDataset:
    entries = [
        Entry(f"{row:06d}", 0, length + extra, (Caption("another", ()), Caption(caption, ())))
        for row, (caption, length) in enumerate(zip(captions, LENGTHS, strict=True))
    ]
    return MotionDataset(
        DatasetFolder("tiny", folder, skeleton), None, entries, tiny_stats(skeleton), None
    )


def test_every_motion_comes_back_to_the_last_bit(folder) -> None:
    store, raw = PairStore(folder), raw_candidates(slice(None))
    assert torch.equal(store.rewards, REWARDS)
    for row, length in enumerate(LENGTHS):
        best, worst = store.load(row)
        assert torch.equal(best, raw[row, BEST[row], : length + EXTRA])
        assert torch.equal(worst, raw[row, WORST[row], : length + EXTRA])


@pytest.mark.parametrize(("mask_frames", "frames"), [(True, 12), (False, KIT.max_length)])
def test_generated_pairs_are_the_stored_best_and_worst_cut_to_the_crop(
    folder, mask_frames: bool, frames: int
) -> None:
    found = draw(folder, "modipo_t", mask_frames=mask_frames)
    raw, stats = raw_candidates(slice(None)), tiny_stats(KIT)
    for motions, index in ((found.preferred, BEST), (found.unpreferred, WORST)):
        assert motions.x.shape == (4, frames, KIT.feature_dim)
        assert not motions.x[~motions.mask].any(), "as in the dataset"
        for row, length in enumerate(LENGTHS):
            expected = stats.normalize(raw[row, index[row], :length])
            torch.testing.assert_close(motions.x[row, :length], expected)
    assert torch.equal(found.reward_preferred, REWARDS.amax(dim=1))
    assert torch.equal(found.reward_unpreferred, REWARDS.amin(dim=1))


def test_offline_pairs_prefer_the_clip_of_the_dataset(folder) -> None:
    found = draw(folder, "offline_dpo")
    torch.testing.assert_close(found.preferred.x, make_winners().x, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.unpreferred.x, draw(folder, "modipo_t").unpreferred.x)
    batch = make_batch()
    expected = FirstFeature().score(Samples(batch.motion, batch.lengths), CAPTIONS)
    torch.testing.assert_close(found.reward_preferred, expected)


def test_pairs_are_found_by_clip_and_caption_not_by_position(folder) -> None:
    store, winners, order = PairStore(folder), make_winners(), [2, 0, 3, 1]
    straight = store.lookup(KEYS, winners)
    mixed = store.lookup([KEYS[i] for i in order], winners[torch.tensor(order)])
    assert torch.equal(straight.best.x[order], mixed.best.x)
    assert torch.equal(straight.worst.x[order], mixed.worst.x)
    assert torch.equal(straight.rewards[order], mixed.rewards)


def test_only_clips_and_captions_with_pairs_are_trained_on(folder) -> None:
    store, data = PairStore(folder), dataset_of(folder)
    store.check(data, KIT)
    extra = Entry("000009", 0, 40, (Caption("nobody generated this", ()),))
    data.entries.append(extra)
    chosen = store.restrict(data)
    assert [entry.name for entry in chosen.entries] == [f"{i:06d}" for i in range(4)]
    assert [c.text for entry in chosen.entries for c in entry.captions] == CAPTIONS
    assert len(data.entries[0].captions) == 2, "the dataset itself stays as it is"


@pytest.mark.parametrize("changes", [{"captions": CAPTIONS[::-1]}, {"extra": 8}])
def test_pairs_of_another_dataset_are_refused(folder, changes) -> None:
    with pytest.raises(UserError, match="its clip 000000 of 16 frames with the caption"):
        PairStore(folder).check(dataset_of(folder, **changes), KIT)


def test_pairs_of_another_width_are_refused(folder) -> None:
    with pytest.raises(UserError, match="have 251 features, the model has 263"):
        PairStore(folder).check(dataset_of(folder), HUMANML)


def test_a_cut_off_file_is_named(folder) -> None:
    path = shard_path(folder, 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"pairs_000001\.safetensors is damaged") as caught:
        PairStore(folder)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_run_is_named(folder) -> None:
    shard_path(folder, 1).write_bytes(shard_path(folder, 0).read_bytes())
    with pytest.raises(UserError, match=r"pairs_000001\.safetensors .* not those of the index"):
        PairStore(folder)


@pytest.mark.parametrize("name", ["best", "worst", "rewards"])
def test_each_tensor_of_a_file_has_the_shape_of_the_index(folder, name: str) -> None:
    path = shard_path(folder, 0)
    tensors = load_file(path)
    tensors[name] = tensors[name][:-1]
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"pairs_000000\.safetensors .* not those of the index"):
        PairStore(folder)


def test_pairs_one_by_one_are_as_good(tmp_path) -> None:
    single, winners = PairStore(write_pairs(tmp_path, batch_size=1)), make_winners()
    together = PairStore(write_pairs(tmp_path / "together")).lookup(KEYS, winners)
    assert torch.equal(single.lookup(KEYS, winners).best.x, together.best.x)
    index = replace(single.index, options={"batch_size": 1, "num_candidates": 1})
    index.write(tmp_path)
    assert PairIndex.read(tmp_path).options == index.options, "the only one is best and worst"


def test_unfinished_pairs_are_refused_with_advice(folder) -> None:
    shard_path(folder, 0).unlink()
    with pytest.raises(UserError, match=r"lacks 1 of 2 files .*pairs_000000.*--resume"):
        PairStore(folder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda index: index.pop("keys"),
        lambda index: index["keys"][0].pop("clip"),
        lambda index: index["options"].pop("batch_size"),
        lambda index: index.update(keys=[]),
        lambda index: index["options"].update(batch_size=0),
        lambda index: index["options"].update(num_candidates=0),
    ],
)
def test_an_index_that_is_none_is_named(folder, spoil) -> None:
    path = folder / "index.json"
    index = json.loads(path.read_text())
    spoil(index)
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"index\.json is no index of preference pairs"):
        PairStore(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"no index\.json"):
        PairStore(folder)
