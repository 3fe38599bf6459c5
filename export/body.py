"""A body around the bones: capsules, each of them rigid on one bone.

Capsules, and not a sculpted mannequin, since they fit every body: the ends of a bone are the
centres of its capsule's ends, however long the bone is, and KIT's 21 joints have one too. They
need no file and no licence.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export.recover import aim
from export.rig import RiggedMotion
from utils.rotations import quat_rotate

SIDES, RINGS = 14, 4  # of a capsule, and of each of its round ends
TRUNK_COLOR, LEFT_COLOR, RIGHT_COLOR = (0.45, 0.49, 0.55), (0.15, 0.48, 0.84), (0.89, 0.38, 0.15)
UP = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Mesh:
    """A surface in the T-pose, in metres, its root joint at the origin.

    vertices, normals ``[V, 3]`` float32; faces ``[F, 3]``; joints ``[V, 4]`` move a vertex with
    weights ``[V, 4]``; colors ``[V, 3]`` in [0, 1].
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    joints: np.ndarray
    weights: np.ndarray
    colors: np.ndarray


@dataclass(frozen=True)
class _Bone:
    """From a joint's place, `vector` metres on; it moves with the joint."""

    joint: int
    start: Tensor
    vector: Tensor
    radius: float


def capsule_body(motion: RiggedMotion) -> Mesh:
    """A capsule for every bone and for head, hands and toes; left is blue, right is orange."""
    plan, rest = motion.plan, motion.t_pose()
    found = [
        _Bone(parent, rest[parent], motion.offsets[child], plan.radii[child])
        for child, parent in list(enumerate(plan.skeleton.parents))[1:]
    ]
    found += [
        _Bone(joint, rest[joint], rest.new_tensor(tip.offset), tip.radius)
        for joint, tip in plan.tips.items()
    ]
    shapes = [_capsule(bone) for bone in found]
    counts = [len(vertices) for vertices, _, _ in shapes]
    firsts = np.cumsum([0, *counts[:-1]])
    owner = np.repeat([bone.joint for bone in found], counts)
    middle = [(bone.start + bone.vector / 2)[0].item() for bone in found]
    return Mesh(
        vertices=np.concatenate([vertices for vertices, _, _ in shapes]).astype(np.float32),
        normals=np.concatenate([normals for _, normals, _ in shapes]).astype(np.float32),
        faces=np.concatenate([f + n for (_, _, f), n in zip(shapes, firsts, strict=True)]),
        joints=np.pad(owner[:, None], ((0, 0), (0, 3))),
        weights=np.tile(np.float32([1, 0, 0, 0]), (len(owner), 1)),
        colors=np.repeat([_color(x) for x in middle], counts, axis=0).astype(np.float32),
    )


def _color(x: float) -> tuple[float, float, float]:
    """In the T-pose the left side is at +X."""
    if abs(x) < 0.02:
        return TRUNK_COLOR
    return LEFT_COLOR if x > 0 else RIGHT_COLOR


def _capsule(bone: _Bone) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices ``[V, 3]``, normals ``[V, 3]`` and faces ``[F, 3]``, seen from outside."""
    length = float(bone.vector.norm())
    latitudes = np.linspace(-np.pi / 2, 0, RINGS + 1)
    latitudes = np.concatenate([latitudes, -latitudes[::-1]])
    middles = np.repeat([0.0, length], RINGS + 1)
    around = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
    flat = np.cos(latitudes)[:, None]
    up = np.broadcast_to(np.sin(latitudes)[:, None], (len(latitudes), SIDES))
    normals = np.stack([flat * np.sin(around), up, flat * np.cos(around)], axis=-1)
    vertices = normals * bone.radius
    vertices[..., 1] += middles[:, None]
    upright, up_axis = bone.vector.new_tensor([[1.0, 0, 0, 0]]), bone.vector.new_tensor(UP)
    turn = aim(upright, up_axis, bone.vector[None])
    placed = quat_rotate(turn, torch.from_numpy(vertices.reshape(-1, 3))) + bone.start
    turned = quat_rotate(turn, torch.from_numpy(normals.reshape(-1, 3)))
    return placed.numpy(), turned.numpy(), _rings_of_faces(len(latitudes))


def _rings_of_faces(rings: int) -> np.ndarray:
    """Two triangles between neighbours of neighbouring rings of `SIDES` vertices."""
    ring, side = np.meshgrid(np.arange(rings - 1), np.arange(SIDES), indexing="ij")
    low, next_low = ring * SIDES + side, ring * SIDES + (side + 1) % SIDES
    high, next_high = low + SIDES, next_low + SIDES
    first = np.stack([low, next_low, next_high], axis=-1)
    second = np.stack([low, next_high, high], axis=-1)
    return np.concatenate([first.reshape(-1, 3), second.reshape(-1, 3)])
