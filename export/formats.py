"""Motions in the formats of other tools: which, how named, and how near to the generated joints."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.skeleton import HUMANML, Skeleton
from export.body import Mesh, capsule_body
from export.body_plan import PLANS, BodyPlan
from export.bvh import write_bvh
from export.glb import check_gltf, write_glb
from export.naming import NAMINGS, choose_naming
from export.npz import write_npz
from export.recover import rig_motion
from export.rig import RiggedMotion
from export.rigid import rest_offsets
from export.smpl import BodyModel, load_body_model, write_smpl
from utils.errors import UserError
from utils.options import option
from utils.tables import markdown_table

FORMATS = ("bvh", "glb", "npz", "smpl")
BODIES = ("capsules", "smpl")
SMPL_SUFFIX = ".smpl.npz"


@dataclass
class ExportOptions:
    """What every script that exports motions shares."""

    fps: float = option(
        0.0, "frames per second of exported files; 0 = the motion's own", minimum=0, maximum=1000
    )
    skeleton: str = option(
        "smpl", "joint names and order of BVH and GLB files", choices=tuple(NAMINGS)
    )
    body: str = option("capsules", "what a GLB file shows; smpl needs --smpl_path", choices=BODIES)
    smpl_path: str = option("", "your SMPL, SMPL-H or SMPL-X model file, for --format smpl")

    def check_formats(self, formats: Sequence[str], skeleton: Skeleton) -> BodyModel | None:
        """The body model where one is needed. Raises UserError for what is missing."""
        if "glb" in formats:
            check_gltf()
        choose_naming(self.skeleton, skeleton)
        if "smpl" not in formats and not ("glb" in formats and self.body == "smpl"):
            return None
        if skeleton is not HUMANML:
            raise UserError(f"SMPL bodies need the 22 joints of HumanML3D, not {skeleton.name}'s")
        return load_body_model(self.smpl_path)


@dataclass(frozen=True)
class NamedMotion:
    """joints ``[T, J, 3]`` in the units of their skeleton; name: of the files, without suffix."""

    name: str
    joints: np.ndarray
    caption: str
    skeleton: Skeleton


@dataclass
class ExportErrors:
    """Distances ``[T, J]`` in metres between generated joints and those of the written file."""

    distances: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, body: str, distances: Tensor) -> None:
        self.distances.setdefault(body, []).append(distances)

    def table(self) -> str:
        """Mean and largest distance per body, and how many motions exceed 3 cm somewhere."""
        rows = []
        for body, found in self.distances.items():
            everything = torch.cat([d.flatten() for d in found]) * 100
            far = sum(bool(d.max() > 0.03) for d in found)
            rows.append(
                [body, f"{everything.mean():.2f}", f"{everything.max():.2f}", f"{far}/{len(found)}"]
            )
        header = ["body", "mean error [cm]", "largest [cm]", "motions beyond 3 cm"]
        return markdown_table(header, rows)


def foot_contacts(joints: Tensor, skeleton: Skeleton) -> Tensor:
    """Left ankle, left foot, right ankle, right foot ``[T, 4]`` planted, by the rule of the
    features; the last frame as the one before. Joints in the skeleton's units."""
    feet = [*skeleton.left_foot, *skeleton.right_foot]
    steps = joints[1:, feet] - joints[:-1, feet]
    planted = steps.square().sum(-1) < skeleton.foot_threshold
    return torch.cat([planted, planted[-1:]])


def export_motions(
    motions: Sequence[NamedMotion], formats: Sequence[str], folder: Path, options: ExportOptions
) -> ExportErrors:
    """Write a file per motion and format; every motion is checked before the first is written.

    Raises UserError for NaN, for fewer than two frames, and for what a format lacks.
    """
    skeleton = motions[0].skeleton
    model = options.check_formats(formats, skeleton)
    writer = _Writer(PLANS[skeleton.name], tuple(formats), folder, options, model)
    for motion in motions:
        _check(motion)
    for motion in tqdm(motions, desc="export"):
        writer.write(motion)
    return writer.errors


def _check(motion: NamedMotion) -> None:
    frames, joints = motion.joints.shape[0], motion.joints
    if frames < 2:
        raise UserError(f"{motion.name}: an animation needs two frames or more, not {frames}")
    broken = ~np.isfinite(joints).all(axis=(1, 2))
    if broken.any():
        raise UserError(f"{motion.name}: frame {int(broken.argmax())} holds NaN or infinity")


@dataclass
class _Writer:
    plan: BodyPlan
    formats: tuple[str, ...]
    folder: Path
    options: ExportOptions
    model: BodyModel | None
    errors: ExportErrors = field(default_factory=ExportErrors)

    def write(self, motion: NamedMotion) -> None:
        """All formats of one motion. Raises UserError, naming it, where it has no directions."""
        raw = torch.from_numpy(np.array(motion.joints, dtype=np.float64))
        joints = raw / self.plan.skeleton.units_per_metre
        try:
            if {"bvh", "glb", "npz"} & set(self.formats):
                self._write_own_body(motion, raw, joints)
            if self.model is not None:
                self._write_smpl_body(motion, joints, self.model)
        except UserError as error:
            raise UserError(f"{motion.name}: {error}") from None

    def _write_own_body(self, motion: NamedMotion, raw: Tensor, joints: Tensor) -> None:
        own = rig_motion(joints, self.plan, self.plan.skeleton.fps)
        self.errors.add("own bones", (own.joints - joints).norm(dim=-1))
        rigged, naming = self._resampled(own), choose_naming(self.options.skeleton, motion.skeleton)
        if "bvh" in self.formats:
            write_bvh(self._path(motion, ".bvh"), rigged, naming)
        if "glb" in self.formats and self.options.body == "capsules":
            mesh = capsule_body(rigged)
            write_glb(self._path(motion, ".glb"), rigged, mesh, naming, motion.caption)
        if "npz" in self.formats:
            contacts = foot_contacts(raw, motion.skeleton)
            seconds = torch.arange(len(rigged)) / rigged.fps
            nearest = (seconds * own.fps).round().long().clamp(max=len(own) - 1)
            write_npz(self._path(motion, ".npz"), rigged, contacts[nearest], motion.caption)

    def _write_smpl_body(self, motion: NamedMotion, joints: Tensor, model: BodyModel) -> None:
        betas = model.fit_shape(rest_offsets(joints, self.plan).norm(dim=-1))
        own = rig_motion(joints, self.plan, self.plan.skeleton.fps, model.offsets(betas))
        self.errors.add(f"{model.kind} body", (own.joints - joints).norm(dim=-1))
        rigged = self._resampled(own)
        if "smpl" in self.formats:
            write_smpl(self._path(motion, SMPL_SUFFIX), rigged, model, betas, motion.caption)
        if "glb" in self.formats and self.options.body == "smpl":
            naming = choose_naming(self.options.skeleton, motion.skeleton)
            mesh: Mesh = model.mesh(betas)
            write_glb(self._path(motion, ".glb"), rigged, mesh, naming, motion.caption)

    def _resampled(self, motion: RiggedMotion) -> RiggedMotion:
        return motion.resampled(self.options.fps or motion.fps)

    def _path(self, motion: NamedMotion, suffix: str) -> Path:
        return self.folder / f"{motion.name}{suffix}"
