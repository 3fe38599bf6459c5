"""SMPL parameters: smplx itself, given them, puts its joints where the motion has them."""

import numpy as np
import pytest
import torch

from data_loaders.skeleton import HUMANML
from export.body_plan import HUMANML_PLAN
from export.glb import write_glb
from export.naming import NAMINGS
from export.recover import rig_motion
from export.rig import RiggedMotion
from export.rigid import rest_offsets
from export.smpl import BodyModel, load_body_model, write_smpl
from tests.data_loaders.bodies import moving
from tests.export.body_files import JOINTS, write_smpl_model
from tests.export.test_glb import Reader
from utils.errors import UserError

smplx = pytest.importorskip("smplx")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> BodyModel:
    return load_body_model(str(write_smpl_model(tmp_path_factory.mktemp("smpl"))))


@pytest.fixture(scope="module")
def betas(model: BodyModel) -> torch.Tensor:
    return model.fit_shape(rest_offsets(moving(30), HUMANML_PLAN).norm(dim=-1))


@pytest.fixture(scope="module")
def motion(model: BodyModel, betas: torch.Tensor) -> RiggedMotion:
    return rig_motion(moving(30), HUMANML_PLAN, HUMANML.fps, model.offsets(betas))


def test_smplx_puts_the_joints_where_the_motion_has_them(model, betas, motion, tmp_path):
    write_smpl(tmp_path / "a.npz", motion, model, betas, "walk")
    file = write_smpl_model(tmp_path)
    body = smplx.create(
        str(file), use_hands=False, use_feet_keypoints=False,
        vertex_ids=dict.fromkeys(("nose", "reye", "leye", "rear", "lear"), 0),
    )  # fmt: skip
    with np.load(tmp_path / "a.npz") as found:
        assert found["model_type"] == "smpl"
        assert found["fps"] == 20
        pose = torch.from_numpy(found["body_pose"])
        output = body(
            global_orient=torch.from_numpy(found["global_orient"]),
            body_pose=torch.nn.functional.pad(pose, (0, 6)),  # SMPL's two hands
            transl=torch.from_numpy(found["transl"]),
            betas=torch.from_numpy(found["betas"])[None].repeat(len(pose), 1),
        )
    np.testing.assert_allclose(
        output.joints[:, : HUMANML.num_joints].detach(), motion.joints.float(), atol=1e-5
    )


def test_the_shape_is_fitted_to_the_bones(model):
    wanted = torch.zeros(10, dtype=torch.float64)
    wanted[0] = 1.5
    taller = model.offsets(wanted).norm(dim=-1)
    found = model.offsets(model.fit_shape(taller)).norm(dim=-1)
    assert (found - taller).abs().max() < 0.004
    average = model.offsets(0 * wanted).norm(dim=-1)
    assert (average - taller).abs().max() > 0.05


def test_the_motion_is_near_the_joints(motion):
    assert (motion.joints - moving(30)).norm(dim=-1).mean() < 0.03


def test_hands_move_with_the_wrists(model):
    assert model.weights.shape == (2 * JOINTS, HUMANML.num_joints)
    torch.testing.assert_close(model.weights.sum(dim=1), torch.ones(2 * JOINTS).double())
    assert model.weights[22, 20] == model.weights[23, 21] == 1


def test_a_skinned_model_in_a_glb_file(model, betas, motion, tmp_path):
    pytest.importorskip("pygltflib")
    write_glb(tmp_path / "a.glb", motion, model.mesh(betas), NAMINGS["smpl"], "walk")
    vertices = Reader(tmp_path / "a.glb").skinned(11)[: HUMANML.num_joints]
    np.testing.assert_allclose(vertices, motion.joints[11].numpy(), atol=1e-5)


def test_what_is_no_model_is_told(tmp_path):
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is not a body model"):
        load_body_model(str(tmp_path / "SMPL_NEUTRAL.pkl"))
    for path in ("", str(tmp_path / "SMPL_MALE.pkl"), str(tmp_path)):
        with pytest.raises(UserError, match="must name your model file"):
            load_body_model(path)
