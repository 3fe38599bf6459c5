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


def normalize(v: Tensor) -> Tensor:
    """Scale to length 1 along the last axis."""
    return v / v.norm(dim=-1, keepdim=True)
