"""The SMPL family: pose, shape and translation for a body model that the user has.

SMPL, SMPL-H and SMPL-X begin with the 22 joints of HumanML3D in its order, so the recovered
rotations of a body with the model's bones are its pose. The models need a licence of their own
(https://smpl.is.tue.mpg.de); smplx unpickles them, so open only files from there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loaders.skeleton import HUMANML
from export.body import TRUNK_COLOR, Mesh
from export.rig import RiggedMotion
from utils.errors import UserError
from utils.extras import extra
from utils.files import atomic_write
from utils.rotations import normalize, quat_to_rotation_vector

KINDS = ("SMPL", "SMPLH", "SMPLX")
BODY_JOINTS = 21  # beside the pelvis; hands and face come after them
SHAPE_STEPS, SHAPE_PRIOR = 5, 1e-4  # Gauss-Newton; weight in m^2 of a shape that is average
KEY_POINTS = dict.fromkeys(("nose", "reye", "leye", "rear", "lear"), 0)  # of smplx; never read


@dataclass(frozen=True)
class BodyModel:
    """template ``[V, 3]`` and joints ``[22, 3]`` of the mean shape in metres, and what each of the
    S shape coefficients adds to them (``[V, 3, S]``, ``[22, 3, S]``); faces ``[F, 3]``; weights
    ``[V, 22]`` of the joints, hands and face counted to the joint that carries them."""

    kind: str
    template: Tensor
    shapes: Tensor
    joints: Tensor
    joint_shapes: Tensor
    faces: np.ndarray
    weights: Tensor

    def offsets(self, betas: Tensor) -> Tensor:
        """Bones ``[22, 3]`` of the body of shape ``[S]``; the first is zero."""
        joints = self.joints + self.joint_shapes @ betas
        parents = list(HUMANML.parents[1:])
        return torch.cat([torch.zeros_like(joints[:1]), joints[1:] - joints[parents]])

    def fit_shape(self, lengths: Tensor) -> Tensor:
        """Shape ``[S]`` whose bones come nearest to lengths ``[22]`` (regularised Gauss-Newton)."""
        betas = torch.zeros(self.shapes.shape[-1], dtype=torch.float64)
        prior = SHAPE_PRIOR * torch.eye(len(betas), dtype=torch.float64)

        def measure(betas: Tensor) -> Tensor:
            return self.offsets(betas)[1:].norm(dim=-1)

        for _ in range(SHAPE_STEPS):
            slope = torch.autograd.functional.jacobian(measure, betas)
            wanted = slope.T @ (lengths[1:] - measure(betas)) - SHAPE_PRIOR * betas
            betas = betas + torch.linalg.solve(slope.T @ slope + prior, wanted)
        return betas

    def mesh(self, betas: Tensor) -> Mesh:
        """The body in the T-pose, its pelvis at the origin; the four largest weights of each."""
        vertices = (
            self.template + self.shapes @ betas - (self.joints + self.joint_shapes @ betas)[0]
        )
        largest, joints = self.weights.topk(4, dim=1)
        count = len(vertices)
        return Mesh(
            vertices=vertices.float().numpy(),
            normals=_vertex_normals(vertices, self.faces).float().numpy(),
            faces=self.faces,
            joints=joints.masked_fill(largest == 0, 0).numpy(),
            weights=(largest / largest.sum(dim=1, keepdim=True)).float().numpy(),
            colors=np.tile(np.float32(TRUNK_COLOR), (count, 1)),
        )


def load_body_model(path: str) -> BodyModel:
    """Raises UserError when smplx or the file is missing, or the file is no such model."""
    file = Path(path)
    kind = file.stem.partition("_")[0].upper()
    if not path or not file.is_file() or kind not in KINDS:
        raise UserError(
            f"--smpl_path {path or '(not given)'} must name your model file, such as "
            "SMPL_NEUTRAL.pkl, SMPLH_MALE.pkl or SMPLX_NEUTRAL.npz; they come with a licence from "
            "https://smpl.is.tue.mpg.de"
        )
    smplx = extra("smplx", "smpl", "SMPL bodies")
    settings = {"use_pca": False, "use_hands": False, "use_feet_keypoints": False}
    try:
        model = smplx.create(str(file), vertex_ids=KEY_POINTS, ext=file.suffix[1:], **settings)
    except Exception as error:  # smplx checks nothing: any kind comes out of a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"--smpl_path {path} is not a body model that smplx reads ({reason})"
        ) from None
    return _body_model(kind, model)


def _body_model(kind: str, model: Any) -> BodyModel:
    regressor = model.J_regressor.double()[: BODY_JOINTS + 1]
    template, shapes = model.v_template.double(), model.shapedirs.double()
    weights = model.lbs_weights.double()
    parents = model.parents.tolist()
    for joint in range(len(parents) - 1, BODY_JOINTS, -1):
        weights[:, parents[joint]] += weights[:, joint]
    return BodyModel(
        kind=kind,
        template=template,
        shapes=shapes,
        joints=regressor @ template,
        joint_shapes=torch.einsum("jv,vcs->jcs", regressor, shapes),
        faces=np.asarray(model.faces, dtype=np.int64),
        weights=weights[:, : BODY_JOINTS + 1],
    )


def _vertex_normals(vertices: Tensor, faces: np.ndarray) -> Tensor:
    """Unit normals ``[V, 3]``: sums over the faces around, larger ones counting more."""
    corners = vertices[torch.from_numpy(faces)]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    index = torch.from_numpy(faces).flatten()
    sums = torch.zeros_like(vertices).index_add(0, index, normals.repeat_interleave(3, dim=0))
    return normalize(sums + 1e-12)


def write_smpl(
    path: Path, motion: RiggedMotion, model: BodyModel, betas: Tensor, caption: str
) -> None:
    """NPZ with the arguments of smplx's models, Y up, in metres and radians."""
    vectors = quat_to_rotation_vector(motion.rotations).float().numpy()
    pelvis = (model.joints + model.joint_shapes @ betas)[0]
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary,
            global_orient=vectors[:, 0],
            body_pose=vectors[:, 1:].reshape(len(vectors), -1),
            transl=(motion.root - pelvis).float().numpy(),
            betas=betas.float().numpy(),
            model_type=np.array(model.kind.lower()),
            fps=np.float64(motion.fps),
            caption=np.array(caption),
        )
