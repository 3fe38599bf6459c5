"""Feature extraction, decoding and statistics against upstream's numbers."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from data_loaders.features import (
    feature_slices,
    features_to_joints,
    features_to_joints_by_rotation,
    process_joints,
    retarget,
    root_trajectory,
)
from data_loaders.normalizer import Statistics, convert
from data_loaders.skeleton import HUMANML, KIT, Skeleton, bone_offsets
from tests.golden.base import Golden, Row, covers


def skeleton_of(g: Golden, base: Skeleton) -> Skeleton:
    """`base` with the constants that the file states."""
    lengths, flat = g["kinematic_chain_len"].tolist(), g["kinematic_chain_flat"].tolist()
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    chains = tuple(tuple(flat[s : s + n]) for s, n in zip(starts, lengths, strict=True))
    return replace(
        base,
        chains=chains,
        raw_offsets=tuple(map(tuple, g["n_raw_offsets"].tolist())),
        face_joints=tuple(g["face_joint_indx"].tolist()),
        left_foot=tuple(g["fid_l"].tolist()),
        right_foot=tuple(g["fid_r"].tolist()),
        leg_joints=tuple(g["leg_joints"].tolist()),
        foot_threshold=g.scalar("feet_thre"),
    )


def constants(g: Golden, base: Skeleton) -> Iterator[Row]:
    stated = skeleton_of(g, base)
    for name in ("chains", "raw_offsets", "face_joints", "left_foot", "right_foot", "leg_joints"):
        same = getattr(stated, name) == getattr(base, name)
        yield g.equal(f"constant {name}", same, True)
    yield g.equal("constant parents", np.array(base.parents), g["parents"])
    yield g.equal("constant foot_threshold", base.foot_threshold, stated.foot_threshold)


def sequence(g: Golden, prefix: str, skeleton: Skeleton, kit: bool) -> Iterator[Row]:
    """One clip: retargeting, features, positions and both decodings."""
    position, rotation = (5e-3, 2e-4) if kit else (5e-5, 5e-5)
    decoded = 5e-3 if kit else 1e-5
    offsets = g.tensor("tgt_offsets")
    joints = g.tensor(prefix + "joints_in").double()
    yield g.close(
        prefix + "uniform_out",
        retarget(joints, skeleton, offsets),
        g[prefix + "uniform_out"],
        atol=5e-3 if kit else 1e-5,
    )
    motion = process_joints(joints, skeleton, offsets)
    expected, parts = g[prefix + "features"], feature_slices(skeleton)
    for name, columns in vars(parts).items():
        tolerance = {"rotations": rotation, "root_angular": 1e-6 if kit else 5e-5}.get(
            name, position
        )
        check = g.equal if name == "contacts" else g.close
        extra = {} if name == "contacts" else {"atol": tolerance}
        yield check(
            f"{prefix}features {name}", motion.features[:, columns], expected[:, columns], **extra
        )
    yield g.close(
        prefix + "global_positions",
        motion.global_positions,
        g[prefix + "global_positions"],
        atol=position,
    )
    yield g.close(
        prefix + "ric_positions", motion.ric_positions, g[prefix + "ric_positions"], atol=position
    )
    yield g.close(
        prefix + "l_velocity", motion.root_velocity, g[prefix + "l_velocity"], atol=position
    )
    yield from decodings(g, prefix, expected, skeleton, decoded)


def decodings(
    g: Golden, prefix: str, features: np.ndarray, skeleton: Skeleton, atol: float
) -> Iterator[Row]:
    import torch

    rows = torch.from_numpy(features)
    quat, root = root_trajectory(rows)
    yield g.close(prefix + "root_rot_quat", quat, g[prefix + "root_rot_quat"], atol=1e-5)
    yield g.close(prefix + "root_pos", root, g[prefix + "root_pos"], atol=atol)
    yield g.close(
        prefix + "joints_from_ric",
        features_to_joints(rows, skeleton),
        g[prefix + "joints_from_ric"],
        atol=atol,
    )
    by_rotation = features_to_joints_by_rotation(rows, skeleton, g.tensor("tgt_offsets"))
    yield g.close(prefix + "joints_from_rot", by_rotation, g[prefix + "joints_from_rot"], atol=atol)


@covers("humanml3d_features*.npz")
def humanml_features(g: Golden) -> Iterator[Row]:
    skeleton = skeleton_of(g, HUMANML)
    yield from constants(g, HUMANML)
    pose = g.tensor("skeleton_example_000021")[: HUMANML.num_joints]
    yield g.close("tgt_offsets", bone_offsets(pose, skeleton), g["tgt_offsets"], atol=1e-6)
    yield g.close("reference body", HUMANML.target_offsets, g["tgt_offsets"], atol=1e-6)
    for prefix in sorted({k.split("/")[0] for k in g.keys("seq")}):
        yield from sequence(g, f"{prefix}/", skeleton, kit=False)
    if g.has("ref/new_joint_vecs"):
        yield from decodings(g, "ref/", g["ref/new_joint_vecs"], skeleton, 1e-5)
    yield g.close(
        "batch/joints_from_ric",
        features_to_joints(g.tensor("batch/features"), skeleton),
        g["batch/joints_from_ric"],
        atol=1e-5,
    )


@covers("kit_features*.npz")
def kit_features(g: Golden) -> Iterator[Row]:
    skeleton = skeleton_of(g, KIT)
    yield from constants(g, KIT)
    yield g.close(
        "tgt_offsets",
        bone_offsets(g.tensor("example_pose").double(), skeleton),
        g["tgt_offsets"],
        rtol=1e-5,
    )
    yield from sequence(g, "", skeleton, kit=True)


@covers("stats*.npz")
def statistics(g: Golden) -> Iterator[Row]:
    dataset = Statistics("dataset_stats", g.tensor("humanml3d/Mean"), g.tensor("humanml3d/Std"))
    evaluator = Statistics("evaluator_stats", g.tensor("t2m_meta/mean"), g.tensor("t2m_meta/std"))
    x = g.tensor("renorm/normalized_in")
    yield g.close(
        "renorm/denormalized",
        dataset.denormalize(x),
        g["renorm/denormalized"],
        atol=1e-6,
        rtol=1e-6,
    )
    yield g.close(
        "renorm/evaluator_out", convert(x, dataset, evaluator), g["renorm/evaluator_out"], atol=1e-4
    )
    real = g.tensor("real/features")
    yield g.close(
        "real/train_normalized",
        dataset.normalize(real),
        g["real/train_normalized"],
        atol=1e-5,
        rtol=1e-6,
    )
    yield g.close(
        "real/evaluator_normalized",
        evaluator.normalize(real),
        g["real/evaluator_normalized"],
        atol=1e-4,
        rtol=1e-6,
    )
