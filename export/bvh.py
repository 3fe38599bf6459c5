"""BVH: a hierarchy with offsets in centimetres, and Euler angles for every frame."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.naming import Naming
from export.rig import RiggedMotion
from utils.files import write_text
from utils.rotations import quat_to_euler

CENTIMETRES = 100.0  # per metre
POSITIONS = "Xposition Yposition Zposition"
ROTATIONS = "Zrotation Yrotation Xrotation"  # R = Rz Ry Rx on column vectors


def write_bvh(path: Path, motion: RiggedMotion, naming: Naming) -> None:
    """Y up, a body in the T-pose facing +Z where all angles are zero, its left side at +X."""
    joints = motion.plan.skeleton.joint_names
    order = [joints.index(name) for name in naming]
    angles = continuous_angles(quat_to_euler(motion.rotations[:, order])).rad2deg()
    values = torch.cat([motion.root * CENTIMETRES, angles.flatten(1)], dim=1)
    rows = io.StringIO()
    np.savetxt(rows, values.numpy(), fmt="%.6f")
    header = ["HIERARCHY", *_hierarchy(motion, naming, 0, ""), "MOTION", f"Frames: {len(motion)}"]
    write_text(path, "\n".join([*header, f"Frame Time: {1 / motion.fps:.9f}", rows.getvalue()]))


def _hierarchy(motion: RiggedMotion, naming: Naming, joint: int, indent: str) -> list[str]:
    """The lines of a joint and of all below it, children in the order of the names."""
    names, plan = motion.plan.skeleton.joint_names, motion.plan
    inner = indent + "  "
    channels = f"6 {POSITIONS} {ROTATIONS}" if joint == 0 else f"3 {ROTATIONS}"
    lines = [
        f"{indent}{'JOINT' if joint else 'ROOT'} {naming[names[joint]]}",
        f"{indent}{{",
        f"{inner}OFFSET {_centimetres(motion.offsets[joint])}",
        f"{inner}CHANNELS {channels}",
    ]
    children = plan.children(joint)
    order = list(naming)
    for child in sorted(children, key=lambda child: order.index(names[child])):
        lines += _hierarchy(motion, naming, child, inner)
    if not children:
        offset = _centimetres(motion.offsets.new_tensor(plan.tips[joint].offset))
        lines += [f"{inner}End Site", f"{inner}{{", f"{inner}  OFFSET {offset}", f"{inner}}}"]
    return [*lines, f"{indent}}}"]


def _centimetres(offset: Tensor) -> str:
    return " ".join(f"{value:.6f}" for value in (offset * CENTIMETRES).tolist())


def continuous_angles(angles: Tensor) -> Tensor:
    """Euler angles ``[T, J, 3]`` (radians) of the same rotations, without jumps.

    A rotation has two triples, (z, y, x) and (z + pi, pi - y, x + pi), and full turns besides; each
    frame takes what is nearest to the frame before, so that tools may interpolate the angles.
    """
    half_turn = angles.new_tensor([torch.pi, torch.pi, torch.pi])
    mirrored = angles * angles.new_tensor([1.0, -1.0, 1.0]) + half_turn
    result = [angles[0]]
    for both in torch.stack([angles, mirrored], dim=-1)[1:]:
        before = result[-1][..., None]
        both = both + ((before - both) / (2 * torch.pi)).round() * 2 * torch.pi
        nearest = (both - before).abs().sum(dim=-2).argmin(dim=-1)
        result.append(both.gather(-1, nearest[:, None, None].expand(*both.shape[:2], 1))[..., 0])
    return torch.stack(result)
