"""GLB (binary glTF 2.0): a skinned body and its animation in one file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.body import Mesh
from export.naming import Naming
from export.rig import RiggedMotion
from utils.extras import extra
from utils.files import atomic_write

if TYPE_CHECKING:  # an extra, whose absence `check_gltf` tells
    from pygltflib import GLTF2

ROOT_NODE = 1  # node 0 is the mesh; joint j is node 1 + j


def check_gltf() -> None:
    """Raises UserError when pygltflib is missing."""
    extra("pygltflib", "export", "GLB files")


def write_glb(path: Path, motion: RiggedMotion, mesh: Mesh, naming: Naming, caption: str) -> None:
    """Metres, Y up, facing +Z in the T-pose, as glTF asks for; times in seconds."""
    import pygltflib as gltf

    file = gltf.GLTF2(asset=gltf.Asset(version="2.0", generator="SoPo"))
    data = _Buffer(file)
    file.scenes = [gltf.Scene(nodes=[0, ROOT_NODE], name=caption, extras={"caption": caption})]
    file.scene = 0
    file.nodes = [gltf.Node(mesh=0, skin=0, name="body"), *_joint_nodes(motion, naming)]
    file.materials = [_material()]
    file.meshes = [gltf.Mesh(primitives=[_primitive(mesh, data)])]
    file.skins = [_skin(motion, data)]
    file.animations = [_animation(motion, data, caption)]
    data.finish()
    with atomic_write(path) as temporary:
        file.save_binary(str(temporary))


class _Buffer:
    """The binary part of a file: every array is a buffer view with one accessor."""

    def __init__(self, file: "GLTF2") -> None:
        self.file, self.parts, self.size = file, [], 0

    def add(self, values: np.ndarray, kind: str, target: int | None = None, **rules: Any) -> int:
        """The number of the accessor of ``[N]`` or ``[N, K]``; kind: SCALAR, VEC3, ..."""
        import pygltflib as gltf

        types = {"float32": gltf.FLOAT, "uint8": gltf.UNSIGNED_BYTE, "uint32": gltf.UNSIGNED_INT}
        view = gltf.BufferView(
            buffer=0, byteOffset=self.size, byteLength=values.nbytes, target=target
        )
        accessor = gltf.Accessor(
            bufferView=len(self.file.bufferViews),
            componentType=types[values.dtype.name],
            count=len(values),
            type=kind,
            **rules,
        )
        self.file.bufferViews.append(view)
        self.file.accessors.append(accessor)
        padding = b"\0" * (-values.nbytes % 4)  # accessors start at multiples of 4
        self.parts.append(np.ascontiguousarray(values).tobytes() + padding)
        self.size += len(self.parts[-1])
        return len(self.file.accessors) - 1

    def finish(self) -> None:
        import pygltflib as gltf

        self.file.buffers = [gltf.Buffer(byteLength=self.size)]
        self.file.set_binary_blob(b"".join(self.parts))


def _joint_nodes(motion: RiggedMotion, naming: Naming) -> "list[Any]":
    """The hierarchy in the pose of the first frame."""
    import pygltflib as gltf

    plan, nodes = motion.plan, []
    rotations = _xyzw(motion)
    for joint, name in enumerate(plan.skeleton.joint_names):
        place = motion.offsets[joint] if joint else motion.root[0]
        node = gltf.Node(
            name=naming[name],
            translation=place.tolist(),
            rotation=rotations[0, joint].tolist(),
            children=[ROOT_NODE + child for child in plan.children(joint)],
        )
        nodes.append(node)
    return nodes


def _xyzw(motion: RiggedMotion) -> np.ndarray:
    """Rotations ``[T, J, 4]`` in the order of glTF."""
    return motion.rotations[..., [1, 2, 3, 0]].numpy().astype(np.float32)


def _material() -> Any:
    import pygltflib as gltf

    surface = gltf.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=0.8)
    return gltf.Material(pbrMetallicRoughness=surface, name="body")


def _primitive(mesh: Mesh, data: _Buffer) -> Any:
    import pygltflib as gltf

    low, high = mesh.vertices.min(axis=0).tolist(), mesh.vertices.max(axis=0).tolist()
    rgba = np.pad(np.round(mesh.colors * 255), ((0, 0), (0, 1)), constant_values=255)
    vertices = gltf.ARRAY_BUFFER
    attributes = gltf.Attributes(
        POSITION=data.add(mesh.vertices, gltf.VEC3, vertices, min=low, max=high),
        NORMAL=data.add(mesh.normals, gltf.VEC3, vertices),
        COLOR_0=data.add(rgba.astype(np.uint8), gltf.VEC4, vertices, normalized=True),
        JOINTS_0=data.add(mesh.joints.astype(np.uint8), gltf.VEC4, vertices),
        WEIGHTS_0=data.add(mesh.weights, gltf.VEC4, vertices),
    )
    faces = mesh.faces.astype(np.uint32).ravel()
    indices = data.add(faces, gltf.SCALAR, gltf.ELEMENT_ARRAY_BUFFER)
    return gltf.Primitive(attributes=attributes, indices=indices, material=0)


def _skin(motion: RiggedMotion, data: _Buffer) -> Any:
    """At rest every joint is only moved, so its inverse is the way back; columns come first."""
    import pygltflib as gltf

    count = motion.plan.skeleton.num_joints
    inverse = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    inverse[:, 3, :3] = -motion.t_pose().numpy()
    matrices = data.add(inverse.reshape(count, 16), gltf.MAT4)
    joints = list(range(ROOT_NODE, ROOT_NODE + count))
    return gltf.Skin(inverseBindMatrices=matrices, joints=joints, skeleton=ROOT_NODE)


def _animation(motion: RiggedMotion, data: _Buffer, caption: str) -> Any:
    """The root's place and the rotation of every joint, each frame a key."""
    import pygltflib as gltf

    seconds = (np.arange(len(motion)) / motion.fps).astype(np.float32)
    ends = {"min": [float(seconds[0])], "max": [float(seconds[-1])]}
    times = data.add(seconds, gltf.SCALAR, **ends)
    tracks = [(0, "translation", data.add(motion.root.float().numpy(), gltf.VEC3))]
    rotations = _xyzw(motion)
    tracks += [
        (joint, "rotation", data.add(rotations[:, joint], gltf.VEC4))
        for joint in range(rotations.shape[1])
    ]
    targets = [gltf.AnimationChannelTarget(node=ROOT_NODE + j, path=path) for j, path, _ in tracks]
    return gltf.Animation(
        name=caption,
        samplers=[
            gltf.AnimationSampler(input=times, output=output, interpolation=gltf.ANIM_LINEAR)
            for _, _, output in tracks
        ],
        channels=[
            gltf.AnimationChannel(sampler=number, target=target)
            for number, target in enumerate(targets)
        ],
    )
