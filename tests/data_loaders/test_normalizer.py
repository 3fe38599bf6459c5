import numpy as np
import pytest
import torch

from data_loaders.features import feature_slices
from data_loaders.normalizer import Statistics, compute_statistics, convert, plain_statistics
from data_loaders.skeleton import HUMANML, KIT
from utils.errors import UserError


def some_statistics(seed, name="dataset_stats", eps=0.0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    mean, std = torch.randn(263, generator=rng), 0.1 + torch.rand(263, generator=rng)
    return Statistics(name, mean.to(dtype), std.to(dtype), eps)


def some_clips(dim=263, seed=0):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.1, 3.0, dim)
    return [(scale * rng.normal(2.0, 1.0, (n, dim))).astype(np.float32) for n in (40, 7, 120)]


@pytest.fixture
def features():
    return torch.randn(2, 5, 263, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_denormalize_inverts_normalize(features, eps):
    stats = some_statistics(1, eps=eps)
    normalized = stats.normalize(features)
    torch.testing.assert_close(stats.denormalize(normalized), features)
    column = (features[..., 3] - stats.mean[3]) / (stats.std[3] + eps)
    torch.testing.assert_close(normalized[..., 3], column)


def test_convert_changes_the_space_and_back(features):
    dataset = some_statistics(1)
    evaluator = some_statistics(2, "evaluator_stats", eps=0.1, dtype=torch.float64)
    x = dataset.normalize(features)
    y = convert(x, dataset, evaluator)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, evaluator.normalize(features))
    torch.testing.assert_close(convert(y, evaluator, dataset), x)
    torch.testing.assert_close(convert(x, dataset, dataset), x)


def test_plain_statistics_do_not_depend_on_where_clips_are_cut():
    clips = some_clips()
    rows = np.concatenate(clips).astype(np.float64)
    for motions in (clips, [rows], np.array_split(rows, 9)):
        stats = plain_statistics(motions)
        np.testing.assert_allclose(stats.mean, rows.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(stats.std, rows.std(axis=0), rtol=1e-5)


@pytest.mark.parametrize("skeleton", [HUMANML, KIT], ids=["humanml", "kit"])
def test_deviation_is_averaged_within_each_group_of_columns(skeleton):
    clips = some_clips(skeleton.feature_dim)
    stats, plain = compute_statistics(clips, skeleton), plain_statistics(clips)
    torch.testing.assert_close(stats.mean, plain.mean)
    assert len(stats.std.unique()) == 7
    for columns in vars(feature_slices(skeleton)).values():
        average = plain.std[columns].mean().expand_as(stats.std[columns])
        torch.testing.assert_close(stats.std[columns], average)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.7])  # 0.7 leaves a rest of rounding
def test_a_group_that_never_moves_gets_deviation_one(value):
    (clip, *_) = some_clips()
    contacts = feature_slices(HUMANML).contacts
    clip[:, contacts] = value
    stats = compute_statistics([clip[:37]] * 3, HUMANML)
    assert stats.std[contacts].tolist() == [1.0] * 4
    assert stats.std[0] > 0.01


def test_statistics_need_a_motion():
    with pytest.raises(ValueError, match="at least one motion"):
        plain_statistics([])


def test_files_hold_what_was_saved(tmp_path, features):
    stats = some_statistics(4)
    stats.save(tmp_path)
    loaded = Statistics.load(tmp_path / "Mean.npy", tmp_path / "Std.npy", "dataset_stats")
    assert loaded.feature_dim == 263
    torch.testing.assert_close(loaded.normalize(features), stats.normalize(features))
    assert np.load(tmp_path / "Std.npy").dtype == np.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; the dataset folder is incomplete"),
        (b"", "not a readable .npy file"),
        (b"\x93NUMPY broken", "not a readable .npy file"),
        (np.ones((263, 1)), r"one finite vector, found shape \(263, 1\)"),
        (np.full(263, np.nan), "one finite vector"),
        (np.ones(251), "vectors of different length"),
        (np.zeros(263), "not positive"),
    ],
)
def test_unusable_files_are_named(tmp_path, content, message):
    some_statistics(4).save(tmp_path)
    path = tmp_path / "Std.npy"
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(UserError, match=message) as raised:
        Statistics.load(tmp_path / "Mean.npy", path, "dataset_stats")
    assert str(path) in str(raised.value)
