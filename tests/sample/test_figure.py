import numpy as np
import pytest

from data_loaders.skeleton import HUMANML, KIT
from sample.figure import DISTANCE, LEFT, RIGHT, TORSO, VIEW, Stage, project

pytest.importorskip("PIL")


def standing(frames: int = 30, speed: float = 0.0) -> np.ndarray:
    """A body in its rest pose that glides along +Z (metres per frame)."""
    joints = np.zeros((22, 3))
    for joint, parent in list(enumerate(HUMANML.parents))[1:]:
        joints[joint] = joints[parent] + HUMANML.target_offsets[joint]
    joints[:, 1] -= joints[:, 1].min()
    glide = np.arange(frames)[:, None, None] * [0.0, 0.0, speed]
    return joints + glide


def color_share(image, color) -> float:
    return float((np.abs(np.asarray(image).astype(int) - color).sum(-1) < 30).mean())


def test_the_camera_is_a_rotation() -> None:
    np.testing.assert_allclose(VIEW @ VIEW.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(VIEW) == pytest.approx(1.0)


def test_projection() -> None:
    target = np.array([1.0, 0.9, -2.0])
    plane, depth = project(target[None], target)
    np.testing.assert_allclose(plane, 0, atol=1e-12)
    assert depth[0] == pytest.approx(0)
    above = project(target + np.array([0, 1, 0]), target)[0]
    left = project(target + np.array([1, 0, 0]), target)[0]
    assert above[0] == pytest.approx(0)
    assert above[1] > 0.8
    assert left[0] > 0.8, "seen from the front, the left side is on the right of the image"
    halfway = project(target + DISTANCE / 2 * VIEW[2] + VIEW[0], target)[0]
    np.testing.assert_allclose(halfway, [2, 0], atol=1e-12)


def test_colours_follow_the_sides_of_both_skeletons() -> None:
    for skeleton in (HUMANML, KIT):
        stage = Stage(np.ones((4, skeleton.num_joints, 3)), skeleton, 20.0)
        for joint, mirrored in enumerate(skeleton.mirror):
            pair = {stage.colors[joint], stage.colors[mirrored]}
            assert pair == ({TORSO} if joint == mirrored else {LEFT, RIGHT})


def test_the_camera_follows_and_the_body_stays_in_view() -> None:
    stage = Stage(standing(speed=0.1), HUMANML, 20.0)
    extent = stage.extent()
    plane, _ = project(stage.joints, stage.targets[:, None])
    assert np.abs(plane).max() < extent
    shares = [color_share(stage.draw(frame, 128, extent), TORSO) for frame in (0, 15, 29)]
    assert min(shares) > 0.005
    assert max(shares) < 2 * min(shares)


def test_both_sides_are_drawn_and_swap_with_the_mirror_image() -> None:
    joints = standing()
    mirrored = joints[:, HUMANML.mirror]
    for motion, left_is_right_of_right in ((joints, True), (mirrored, False)):
        image = np.asarray(Stage(motion, HUMANML, 20.0).draw(0, 200, 1.2)).astype(int)
        columns = [np.nonzero(np.abs(image - c).sum(-1) < 30)[1].mean() for c in (LEFT, RIGHT)]
        assert (columns[0] > columns[1]) == left_is_right_of_right


def test_frames_beyond_the_end_keep_the_last_pose() -> None:
    stage = Stage(standing(10, 0.05), HUMANML, 20.0)
    last, later = (np.asarray(stage.draw(frame, 64, 1.2)) for frame in (9, 50))
    np.testing.assert_array_equal(last, later)


def test_kit_is_drawn_in_metres() -> None:
    joints = np.random.default_rng(0).normal(900, 300, size=(20, 21, 3))
    assert 0.5 < Stage(joints, KIT, 12.5).extent() < 3
