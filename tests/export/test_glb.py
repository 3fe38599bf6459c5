"""GLB files, played by a reader of this test: hierarchy, animation, skin."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_loaders.skeleton import HUMANML
from export.body import capsule_body
from export.glb import write_glb
from export.naming import NAMINGS
from export.rig import RiggedMotion
from tests.export.motions import walk

pygltflib = pytest.importorskip("pygltflib")
TYPES = {5121: np.uint8, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Reader:
    """What a player does with a file."""

    def __init__(self, path) -> None:
        self.file = pygltflib.GLTF2().load(str(path))
        self.blob = self.file.binary_blob()
        self.animation = self.file.animations[0]

    def array(self, accessor: int) -> np.ndarray:
        found = self.file.accessors[accessor]
        view = self.file.bufferViews[found.bufferView]
        width = WIDTHS[found.type]
        data = np.frombuffer(
            self.blob, TYPES[found.componentType], found.count * width, view.byteOffset
        )
        return data.reshape(found.count, width)

    def world(self, frame: int) -> dict[int, np.ndarray]:
        """Matrices ``[4, 4]`` of all joints at a key."""
        local = {}
        for number, node in enumerate(self.file.nodes[1:], start=1):
            local[number] = (np.array(node.translation), np.array(node.rotation))
        for channel in self.animation.channels:
            value = self.array(self.animation.samplers[channel.sampler].output)[frame]
            place, turn = local[channel.target.node]
            moved = channel.target.path == "translation"
            local[channel.target.node] = (value, turn) if moved else (place, value)
        matrices: dict[int, np.ndarray] = {}

        def visit(node: int, above: np.ndarray) -> None:
            place, turn = local[node]
            matrix = np.eye(4)
            matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(turn).as_matrix(), place
            matrices[node] = above @ matrix
            for child in self.file.nodes[node].children:
                visit(child, matrices[node])

        visit(self.file.skins[0].skeleton, np.eye(4))
        return matrices

    def skinned(self, frame: int) -> np.ndarray:
        attributes = self.file.meshes[0].primitives[0].attributes
        skin, world = self.file.skins[0], self.world(frame)
        inverse = self.array(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        moves = np.stack([world[n] @ inverse[i] for i, n in enumerate(skin.joints)])
        vertices = np.pad(self.array(attributes.POSITION), ((0, 0), (0, 1)), constant_values=1)
        chosen = moves[self.array(attributes.JOINTS_0)]
        blended = (self.array(attributes.WEIGHTS_0)[..., None, None] * chosen).sum(axis=1)
        return np.einsum("vij,vj->vi", blended, vertices)[:, :3]


@pytest.fixture(scope="module")
def motion() -> RiggedMotion:
    return walk()


@pytest.fixture(scope="module")
def reader(motion, tmp_path_factory) -> Reader:
    path = tmp_path_factory.mktemp("glb") / "a.glb"
    write_glb(path, motion, capsule_body(motion), NAMINGS["mixamo"], "a <walk> é")
    return Reader(path)


@pytest.mark.parametrize("frame", [0, 17, 40])
def test_joints_are_where_the_motion_has_them(reader, motion, frame):
    places = [reader.world(frame)[1 + joint][:3, 3] for joint in range(HUMANML.num_joints)]
    np.testing.assert_allclose(places, motion.joints[frame].numpy(), atol=1e-5)


def test_times_names_and_caption(reader):
    times = reader.array(reader.animation.samplers[0].input)[:, 0]
    np.testing.assert_allclose(times, np.arange(41) / 20, atol=1e-6)
    assert reader.file.nodes[1].name == "mixamorig:Hips"
    assert reader.file.scenes[0].extras["caption"] == "a <walk> é"


def test_the_skin_follows_the_bones(reader, motion):
    """Every vertex of a capsule keeps its distance to the bone, whatever the pose."""
    body, parents = capsule_body(motion), list(HUMANML.parents)
    knee = HUMANML.joint_names.index("left_knee")
    thigh = (body.joints[:, 0] == parents[knee]).nonzero()[0]
    for frame in (0, 25):
        vertices = reader.skinned(frame)[thigh]
        start, end = motion.joints[frame, [parents[knee], knee]].numpy()
        along = np.clip(((vertices - start) @ (end - start)) / ((end - start) ** 2).sum(), 0, 1)
        distance = np.linalg.norm(vertices - start - along[:, None] * (end - start), axis=1)
        np.testing.assert_allclose(distance, motion.plan.radii[knee], atol=1e-4)


def test_the_surface_is_closed_and_seen_from_outside(motion):
    body = capsule_body(motion)
    corners = body.vertices[body.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    solid = np.linalg.norm(normals, axis=1) > 1e-9  # the poles are fans of flat triangles
    outward = (normals[solid] * body.normals[body.faces[solid]].mean(axis=1)).sum(axis=1)
    assert (outward > 0).all()
    volume = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.03 < volume < 0.12, "cubic metres; overlaps count twice"
    np.testing.assert_allclose(np.linalg.norm(body.normals, axis=1), 1, atol=1e-5)


def test_another_reader_finds_the_same_surface(motion, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    body = capsule_body(motion)
    write_glb(tmp_path / "a.glb", motion, body, NAMINGS["smpl"], "walk")
    (mesh,) = trimesh.load(tmp_path / "a.glb", process=False).geometry.values()
    np.testing.assert_allclose(mesh.vertices, body.vertices, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, body.faces)
