import math

import pytest
import torch

from utils.rotations import (
    matrix_to_quat,
    matrix_to_sixd,
    normalize,
    quat_about,
    quat_between,
    quat_inverse,
    quat_multiply,
    quat_rotate,
    quat_slerp,
    quat_to_euler,
    quat_to_matrix,
    quat_to_rotation_vector,
    sixd_to_matrix,
)

X, Y, Z = torch.eye(3, dtype=torch.float64)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def quats(rng, *shape):
    return normalize(torch.randn(*shape, 4, generator=rng, dtype=torch.float64))


def vectors(rng, *shape):
    return torch.randn(*shape, 3, generator=rng, dtype=torch.float64)


def angle_of(q):
    """Angle of unit quaternions in [0, pi]."""
    return 2 * torch.atan2(q[..., 1:].norm(dim=-1), q[..., 0].abs())


def test_product_applies_the_second_factor_first(rng):
    a, b, v = quats(rng, 50), quats(rng, 50), vectors(rng, 50)
    expected = quat_rotate(a, quat_rotate(b, v))
    torch.testing.assert_close(quat_rotate(quat_multiply(a, b), v), expected)
    product = quat_to_matrix(a) @ quat_to_matrix(b)
    torch.testing.assert_close(quat_to_matrix(quat_multiply(a, b)), product)


def test_inverse_undoes_the_rotation(rng):
    q, v = quats(rng, 50), vectors(rng, 50)
    torch.testing.assert_close(quat_rotate(quat_inverse(q), quat_rotate(q, v)), v)


def test_matrices_are_proper_rotations(rng):
    matrix = quat_to_matrix(quats(rng, 50))
    eye = torch.eye(3, dtype=torch.float64).expand_as(matrix)
    torch.testing.assert_close(matrix @ matrix.mT, eye)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(50, dtype=torch.float64))


def test_axis_rotations_are_right_handed():
    quarter = torch.tensor(math.pi / 2, dtype=torch.float64)
    for axis, before, after in (("x", Y, Z), ("y", Z, X), ("z", X, Y)):
        torch.testing.assert_close(quat_rotate(quat_about(axis, quarter), before), after)


@pytest.mark.parametrize("count", [1, 3, 50])  # 3 rows could be mistaken for the axis of vectors
def test_between_takes_one_direction_to_the_other(rng, count):
    a, b = vectors(rng, count), vectors(rng, count)
    q = quat_between(a, b)
    torch.testing.assert_close(quat_rotate(q, normalize(a)), normalize(b))
    assert (q[:, 0] >= 0).all()


def test_between_is_the_shortest_rotation(rng):
    a, b = normalize(vectors(rng, 50)), normalize(vectors(rng, 50))
    torch.testing.assert_close(angle_of(quat_between(a, b)), (a * b).sum(-1).acos())
    torch.testing.assert_close(
        quat_between(a, 3 * a), torch.tensor([[1.0, 0, 0, 0]]).to(a).repeat(50, 1)
    )


def test_between_opposite_directions_is_not_a_number():
    assert quat_between(X, -X).isnan().all()


def test_sixd_round_trip(rng):
    matrix = quat_to_matrix(quats(rng, 4, 5))
    sixd = matrix_to_sixd(matrix)
    assert sixd.shape == (4, 5, 6)
    torch.testing.assert_close(sixd[..., :3], matrix @ X)
    torch.testing.assert_close(sixd[..., 3:], matrix @ Y)
    torch.testing.assert_close(sixd_to_matrix(sixd), matrix)


def test_any_sixd_becomes_a_rotation(rng):
    sixd = torch.randn(50, 6, generator=rng, dtype=torch.float64)
    matrix = sixd_to_matrix(sixd)
    eye = torch.eye(3, dtype=torch.float64).expand_as(matrix)
    torch.testing.assert_close(matrix @ matrix.mT, eye)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(matrix @ X, normalize(sixd[:, :3]))
    # the second vector only loses what it shares with the first
    assert ((matrix @ Y) * sixd[:, 3:]).sum(-1).min() > 0


def test_shapes_broadcast_and_types_are_kept(rng):
    q, v = quats(rng, 6, 1), vectors(rng, 4)
    assert quat_rotate(q, v).shape == (6, 4, 3)
    for dtype in (torch.float32, torch.float64):
        a, b = q.to(dtype), v.to(dtype)
        results = (
            quat_rotate(a, b),
            quat_between(b, b.flip(0)),
            quat_to_matrix(a),
            quat_about("y", b),
        )
        assert {result.dtype for result in results} == {dtype}


def same_rotation(a, b):
    """Quaternions up to their sign."""
    torch.testing.assert_close((a * b).sum(-1).abs(), torch.ones_like(a[..., 0]))


def test_matrices_become_quaternions_also_near_half_turns(rng):
    q = quats(rng, 200)
    same_rotation(matrix_to_quat(quat_to_matrix(q)), q)
    half_turns = torch.cat([torch.zeros(3, 1), torch.eye(3)], dim=1).double()
    same_rotation(matrix_to_quat(quat_to_matrix(half_turns)), half_turns)


def test_slerp_turns_evenly_the_short_way(rng):
    a, b = quats(rng, 50), quats(rng, 50)
    whole = angle_of(quat_multiply(quat_inverse(a), b))
    for share in (0.0, 0.25, 1.0):
        part = angle_of(quat_multiply(quat_inverse(a), quat_slerp(a, b, share)))
        torch.testing.assert_close(part, share * whole, atol=1e-7, rtol=0)
    same_rotation(quat_slerp(a, -a, 0.3), a)


def test_rotation_vectors_are_axis_times_angle(rng):
    angle = torch.tensor([-3.0, -1e-12, 0.0, 0.5, 3.1], dtype=torch.float64)
    vector = quat_to_rotation_vector(quat_about("z", angle))
    torch.testing.assert_close(vector[:, 2], angle)
    assert (vector[:, :2] == 0).all()
    assert quat_to_rotation_vector(quats(rng, 100)).norm(dim=-1).max() <= math.pi


def test_euler_angles_multiply_to_the_rotation(rng):
    locked = quat_multiply(
        quat_about("z", torch.tensor(0.7, dtype=torch.float64)),
        quat_about("y", torch.tensor([1, -1], dtype=torch.float64) * math.pi / 2),
    )
    q = torch.cat([quats(rng, 200), locked])
    z, y, x = quat_to_euler(q).unbind(-1)
    product = quat_multiply(
        quat_multiply(quat_about("z", z), quat_about("y", y)), quat_about("x", x)
    )
    same_rotation(product, q)
    assert y.abs().max() <= math.pi / 2 + 1e-9
