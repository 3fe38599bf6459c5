"""The benchmark's metrics on cases whose value is known in closed form."""

import numpy as np
import pytest

from data_loaders.motion_quality import FOOT_HEIGHT, FOOT_SLIDE, foot_skating
from data_loaders.skeleton import HUMANML
from eval.metrics import (
    distance_matrix,
    diversity,
    fid,
    matching_score,
    multimodality,
    r_precision,
    top_k_hits,
)
from utils.errors import UserError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def exact_gaussian(mean, covariance, rng, count: int = 500) -> np.ndarray:
    """Samples whose own mean and covariance are exactly these."""
    x = rng.standard_normal((count, len(mean)))
    x -= x.mean(axis=0)
    whitened = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_fid_of_identical_sets_is_0_and_of_shifted_ones_the_squared_shift(rng) -> None:
    x = rng.standard_normal((300, 16)) * rng.uniform(0.1, 5, 16)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)
    assert fid(x, x[::-1]) == pytest.approx(0, abs=1e-9)
    assert fid(x, x + 0.5) == pytest.approx(16 * 0.25)
    sets = [1e3 * rng.standard_normal((300, 16)) for _ in range(20)]
    assert min(fid(y, y[::-1]) for y in sets) >= 0, "no negative distance from rounding"


def test_fid_of_gaussians_with_commuting_covariances(rng) -> None:
    """|m1 - m2|^2 + sum (s1 - s2)^2 for diagonal covariances."""
    mean1, mean2 = np.array([1.0, 0.0, -2.0]), np.array([0.0, 3.0, -2.0])
    std1, std2 = np.array([1.0, 0.5, 2.0]), np.array([2.0, 0.5, 0.1])
    a = exact_gaussian(mean1, np.diag(std1**2), rng)
    b = exact_gaussian(mean2, np.diag(std2**2), rng)
    expected = np.square(mean1 - mean2).sum() + np.square(std1 - std2).sum()
    assert fid(a, b) == pytest.approx(expected, rel=1e-9)
    assert fid(b, a) == pytest.approx(expected, rel=1e-9)


def test_fid_of_gaussians_in_general_position(rng) -> None:
    """In two dimensions tr (C1 C2)^(1/2) = sqrt(tr C1 C2 + 2 sqrt(det C1 C2))."""
    c1, c2 = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    product = c1 @ c2
    root_trace = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(c1) + np.trace(c2) - 2 * root_trace
    zero = np.zeros(2)
    found = fid(exact_gaussian(zero, c1, rng), exact_gaussian(zero, c2, rng))
    assert found == pytest.approx(expected, rel=1e-9)


def test_fid_refuses_what_it_cannot_measure(rng) -> None:
    x = rng.standard_normal((40, 16))
    with pytest.raises(UserError, match="needs more than 16"):
        fid(x, x[:16])
    assert fid(x[:10], x[:10], allow_singular=True) == pytest.approx(0, abs=1e-6)
    broken = x.copy()
    broken[3, 2] = np.nan
    with pytest.raises(UserError, match="generated embeddings hold NaN"):
        fid(x, broken)


def test_distances_of_equal_rows_are_exactly_0(rng) -> None:
    x = (1e3 + rng.standard_normal((20, 8))).astype(np.float32)
    assert np.all(np.diag(distance_matrix(x, x)) == 0)
    assert distance_matrix([[0.0, 0.0]], [[3.0, 4.0]]) == 5.0


def test_r_precision_of_a_line_of_points() -> None:
    """Texts at 0, 1, 2, ...; each motion lies 0.9 beyond its text, so the next text is nearer.

    Text i then has motion i - 1 (at distance 0.1) before its own (0.9); text 0 has none before.
    """
    texts = np.arange(32.0)[:, None]
    motions = texts + 0.9
    np.testing.assert_allclose(r_precision(texts, motions), [1 / 32, 1, 1])
    assert matching_score(texts, motions) == pytest.approx(0.9)
    assert top_k_hits(texts[:2], motions[:2], k=2).tolist() == [[True, True], [False, True]]


def test_r_precision_averages_pools_and_drops_the_rest() -> None:
    points = np.arange(70.0)[:, None]
    motions = points.copy()
    motions[32:64] = np.roll(motions[32:64], 16, axis=0)  # in the second pool none is near
    motions[64:] = 1e6
    np.testing.assert_allclose(r_precision(points, motions), [0.5, 0.5, 0.5])
    with pytest.raises(UserError, match="needs pools of 32"):
        r_precision(points[:31], motions[:31])


def test_r_precision_of_random_embeddings_is_chance(rng) -> None:
    texts, motions = rng.standard_normal((2, 3200, 8))
    np.testing.assert_allclose(r_precision(texts, motions), [1 / 32, 2 / 32, 3 / 32], atol=0.012)


def test_diversity_and_multimodality_of_two_points() -> None:
    """A pair differs with probability 1/2, and then by 2."""
    two = np.where(np.arange(2000) % 2, 1.0, -1.0)[:, None]
    rng = np.random.RandomState(0)
    assert diversity(two, times=1000, rng=rng) == pytest.approx(1.0, abs=0.1)
    repeats = np.broadcast_to(two[:100, 0], (50, 100))[..., None]
    assert multimodality(repeats, times=50, rng=rng) == pytest.approx(1.0, abs=0.3)
    assert multimodality(np.ones((4, 12, 3))) == 0
    with pytest.raises(UserError, match="more than 300"):
        diversity(two[:300])
    with pytest.raises(UserError, match="more than 10 repeats"):
        multimodality(np.ones((4, 10, 3)))


def standing(frames: int = 21) -> np.ndarray:
    """Joints of one pose, feet on the floor."""
    pose = np.zeros((frames, HUMANML.num_joints, 3))
    pose[:, :, 1] = 1.0
    for foot in (HUMANML.left_foot[1], HUMANML.right_foot[1]):
        pose[:, foot, 1] = 0.0
    return pose


def test_planted_feet_do_not_skate_and_sliding_ones_do() -> None:
    joints = standing()
    joints[:, 15, 0] += np.linspace(0, 5, 21)  # the head may move
    assert foot_skating(joints, HUMANML) == 0
    metres_per_frame = 1 / HUMANML.fps
    sliding = standing() + np.arange(21)[:, None, None] * [metres_per_frame, 0, 0]
    assert foot_skating(sliding, HUMANML) == 1
    assert foot_skating(standing() + np.array([0, 0.7, 0]), HUMANML) == 0


def test_only_fast_feet_near_the_floor_skate() -> None:
    left, right = HUMANML.left_foot[1], HUMANML.right_foot[1]
    walk = np.arange(21) / HUMANML.fps  # 1 m/s
    swinging = standing()
    swinging[:, left, 2] = walk
    assert foot_skating(swinging, HUMANML) == 1
    swinging[:, left, 1] = FOOT_HEIGHT + 0.01  # above the other, planted foot
    assert foot_skating(swinging, HUMANML) == 0
    creeping = standing()
    creeping[:, right, 0] = 0.4 * walk
    assert foot_skating(creeping, HUMANML) == 0
    half = standing()
    half[:, right, 0] = np.maximum(0, walk - walk[10])  # slides in the second half
    assert foot_skating(half, HUMANML) == 0.5


def two_frames(foot: int, *steps: tuple[float, float, float]) -> np.ndarray:
    """A body on the floor, one foot of which is at these places, frame after frame."""
    joints = standing(len(steps))
    joints[:, foot] = steps
    return joints


@pytest.mark.parametrize("foot", [HUMANML.left_foot[1], HUMANML.right_foot[1]])
def test_where_skating_begins(foot: int) -> None:
    """At 5 cm above the lowest place of any foot in the clip, and above 0.5 m/s along the floor."""
    assert (FOOT_HEIGHT, FOOT_SLIDE) == (0.05, 0.5)
    step = FOOT_SLIDE / HUMANML.fps
    far, near = (0.1, 0.0, 0.0), (step, 0.0, 0.0)
    assert foot_skating(two_frames(foot, (0, 0, 0), near), HUMANML) == 0, "at 0.5 m/s"
    assert foot_skating(two_frames(foot, (0, 0, 0), (1.01 * step, 0, 0)), HUMANML) == 1
    diagonal = (0.8 * step, 0.0, 0.8 * step)
    assert foot_skating(two_frames(foot, (0, 0, 0), diagonal), HUMANML) == 1, "speed is a norm"
    assert foot_skating(two_frames(foot, (0, 0, 0), (0, 0.04, 0)), HUMANML) == 0, "upwards"
    assert foot_skating(two_frames(foot, (0, 0.05, 0), far), HUMANML) == 0, "at 5 cm"
    assert foot_skating(two_frames(foot, (0, 0.049, 0), far), HUMANML) == 1
    assert foot_skating(two_frames(foot, (0, 0, 0), (0.1, 0.3, 0)), HUMANML) == 1, "it lifts off"
    assert foot_skating(two_frames(foot, (0, 0.3, 0), far), HUMANML) == 0, "it comes down"
    lowest_last = two_frames(foot, (0, 0, 0), (0.1, 0, 0), (0.1, -0.06, 0))
    assert foot_skating(lowest_last, HUMANML) == 0, "the floor is the lowest place of the clip"


def test_a_frame_counts_once_whichever_feet_slide() -> None:
    joints = standing(3)
    for foot in (HUMANML.left_foot[1], HUMANML.right_foot[1]):
        joints[1:, foot, 0] = 0.1
    assert foot_skating(joints, HUMANML) == 0.5


class Watched(np.random.RandomState):
    """Notes what it was asked to choose."""

    chosen: list[np.ndarray]

    def choice(self, *arguments, **further) -> np.ndarray:
        found = super().choice(*arguments, **further)
        self.chosen = [*getattr(self, "chosen", []), found]
        return found


@pytest.mark.parametrize("measure", [diversity, multimodality])
def test_pairs_are_two_draws_without_replacement_from_the_given_numbers(measure, rng) -> None:
    points = rng.standard_normal((3, 40, 2) if measure is multimodality else (40, 2))
    watched = Watched(3)
    found = measure(points, times=39, rng=watched)
    assert [len(set(rows.tolist())) for rows in watched.chosen] == [39, 39]
    assert measure(points, times=39, rng=np.random.RandomState(3)) == found
    assert measure(points, times=39, rng=np.random.RandomState(4)) != found
    assert measure(points, times=39) > 0, "without numbers of its own"


def test_three_neighbours_are_asked_unless_told_otherwise(rng) -> None:
    texts, motions = rng.standard_normal((2, 64, 4))
    assert top_k_hits(texts, motions).shape == (64, 3)
    assert r_precision(texts, motions).shape == (3,)
