"""A body model of the SMPL family in small: a few vertices, real joints."""

import pickle
from pathlib import Path

import numpy as np

from data_loaders.skeleton import HUMANML
from export.body_plan import HUMANML_PLAN

JOINTS = 24  # of SMPL: two hands come after the 22
SHAPES = 10


def write_smpl_model(folder: Path) -> Path:
    """``SMPL_NEUTRAL.pkl`` with a vertex on every joint and one beside it.

    The first shape coefficient scales the body, the others move single joints a little.
    """
    lengths = np.linalg.norm(HUMANML.target_offsets, axis=1)
    offsets = HUMANML_PLAN.directions().numpy() * lengths[:, None]
    offsets[[1, 2], 1] -= 0.08  # hips below the pelvis, as bodies have them
    parents = [*HUMANML.parents, 20, 21]
    offsets = np.concatenate([offsets, [[0.08, 0, 0], [-0.08, 0, 0]]])
    places = np.array([[0.0, -0.2, 0.03]])  # a model's pelvis is not at its origin
    for joint in range(1, JOINTS):
        places = np.concatenate([places, [places[parents[joint]] + offsets[joint]]])
    template = np.concatenate([places, places + np.array([0.0, 0.0, 0.05])])
    shapes = np.zeros((2 * JOINTS, 3, SHAPES))
    shapes[:, :, 0] = 0.1 * template
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal((JOINTS, 3, SHAPES - 1))
    shapes[:JOINTS, :, 1:] = shapes[JOINTS:, :, 1:] = noise
    weights = np.tile(np.eye(JOINTS), (2, 1))
    content = {
        "v_template": template,
        "f": np.stack([np.arange(JOINTS), np.arange(JOINTS) + JOINTS, (np.arange(JOINTS) + 1)], 1),
        "shapedirs": shapes,
        "posedirs": np.zeros((2 * JOINTS, 3, 9 * (JOINTS - 1))),
        "J_regressor": np.eye(JOINTS, 2 * JOINTS),
        "kintree_table": np.array([[2**32 - 1, *parents[1:]], np.arange(JOINTS)], np.int64),
        "weights": weights,
    }
    path = folder / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(content))
    return path
