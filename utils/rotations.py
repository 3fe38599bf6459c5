"""Rotations as quaternions (w, x, y, z), matrices and two-column 6-D vectors, in PyTorch.

Every function takes any leading batch shape and keeps the input's floating type.
"""

import torch
from torch import Tensor


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product ``[..., 4]``: first b, then a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def quat_inverse(q: Tensor) -> Tensor:
    """Inverse of unit quaternions ``[..., 4]``."""
    return q * q.new_tensor([1.0, -1.0, -1.0, -1.0])


def quat_rotate(q: Tensor, v: Tensor) -> Tensor:
    """Rotate vectors ``[..., 3]`` by unit quaternions ``[..., 4]`` (leading shapes broadcast)."""
    w, axis = q[..., :1], q[..., 1:]
    axis, v = torch.broadcast_tensors(axis, v)
    cross = torch.linalg.cross(axis, v, dim=-1)
    return v + 2 * (w * cross + torch.linalg.cross(axis, cross, dim=-1))


def quat_between(a: Tensor, b: Tensor) -> Tensor:
    """Shortest rotation that takes direction a to direction b ``[..., 3]``; always w >= 0.

    Undefined (NaN) for exactly opposite or zero vectors.
    """
    a, b = torch.broadcast_tensors(a, b)
    lengths = (a.square().sum(-1, keepdim=True) * b.square().sum(-1, keepdim=True)).sqrt()
    w = lengths + (a * b).sum(-1, keepdim=True)
    return normalize(torch.cat([w, torch.linalg.cross(a, b, dim=-1)], dim=-1))


def quat_about(axis: str, angle: Tensor) -> Tensor:
    """Rotation by `angle` (radians, ``[...]``) about ``"x"``, ``"y"`` or ``"z"``: ``[..., 4]``.

    About Y a positive angle turns Z to X.
    """
    zero = torch.zeros_like(angle)
    parts = [(angle / 2).cos(), zero, zero, zero]
    parts["wxyz".index(axis)] = (angle / 2).sin()
    return torch.stack(parts, dim=-1)


def quat_to_matrix(q: Tensor) -> Tensor:
    """Unit quaternions ``[..., 4]`` -> rotation matrices ``[..., 3, 3]``."""
    columns = [quat_rotate(q, axis.expand(*q.shape[:-1], 3)) for axis in torch.eye(3).to(q)]
    return torch.stack(columns, dim=-1)


def matrix_to_sixd(matrix: Tensor) -> Tensor:
    """Columns 0 and 1 of ``[..., 3, 3]``, one after the other: ``[..., 6]``."""
    return torch.cat([matrix[..., 0], matrix[..., 1]], dim=-1)


def sixd_to_matrix(sixd: Tensor) -> Tensor:
    """Gram-Schmidt (Zhou et al. 2019): ``[..., 6]`` -> ``[..., 3, 3]``."""
    a, b = sixd[..., :3], sixd[..., 3:]
    first = normalize(a)
    third = normalize(torch.linalg.cross(first, b, dim=-1))
    second = torch.linalg.cross(third, first, dim=-1)
    return torch.stack([first, second, third], dim=-1)


def matrix_to_quat(matrix: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` -> unit quaternions ``[..., 4]`` with their largest part
    positive.

    Each of w, x, y, z gives the whole quaternion up to its own size; the largest divides best
    (Bar-Itzhack 2000 lists the four forms).
    """
    xx, yy, zz = matrix.diagonal(dim1=-2, dim2=-1).unbind(-1)
    (_, xy, xz), (yx, _, yz), (zx, zy, _) = (row.unbind(-1) for row in matrix.unbind(-2))
    rows = [
        torch.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], dim=-1),
        torch.stack([zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx], dim=-1),
        torch.stack([xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz], dim=-1),
        torch.stack([yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz], dim=-1),
    ]
    candidates = torch.stack(rows, dim=-2)  # row i is 4 q_i times the quaternion
    largest = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    return normalize(candidates.gather(-2, index).squeeze(-2))


def quat_slerp(a: Tensor, b: Tensor, share: Tensor | float) -> Tensor:
    """From a (share 0) to b (share 1) at constant speed the short way round: ``[..., 4]``.

    share: ``[...]``.
    """
    dot = (a * b).sum(-1, keepdim=True)
    b, dot = torch.where(dot < 0, -b, b), dot.abs().clamp(max=1.0)
    angle = dot.acos()
    share = torch.as_tensor(share, dtype=a.dtype, device=a.device)[..., None]
    sine = angle.sin()
    near = sine < 1e-6  # where the arc is as good as straight
    divisor = torch.where(near, torch.ones_like(sine), sine)
    from_a = torch.where(near, 1 - share, ((1 - share) * angle).sin() / divisor)
    from_b = torch.where(near, share.expand_as(sine), (share * angle).sin() / divisor)
    return normalize(from_a * a + from_b * b)


def quat_to_rotation_vector(q: Tensor) -> Tensor:
    """Unit quaternions ``[..., 4]`` -> axis times angle in radians ``[..., 3]``, at most pi."""
    q = torch.where(q[..., :1] < 0, -q, q)
    sine = q[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, q[..., :1])
    scale = torch.where(sine < 1e-9, torch.full_like(sine, 2.0), angle / sine.clamp(min=1e-9))
    return q[..., 1:] * scale


def quat_to_euler(q: Tensor) -> Tensor:
    """Angles ``[..., 3]`` (z, y, x; radians) with q = Rz Ry Rx, y within a quarter turn.

    At y = a quarter turn z and x turn about one axis; x is then 0.
    """
    w, x, y, z = q.unbind(-1)
    sine = (2 * (w * y - z * x)).clamp(-1.0, 1.0)
    locked = sine.abs() > 1 - 1e-12
    about_z = torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    about_x = torch.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    alone = 2 * torch.atan2(z, w)
    about_z = torch.where(locked, alone, about_z)
    return torch.stack([about_z, sine.asin(), about_x.masked_fill(locked, 0.0)], dim=-1)


def normalize(v: Tensor) -> Tensor:
    """Scale to length 1 along the last axis."""
    return v / v.norm(dim=-1, keepdim=True)
