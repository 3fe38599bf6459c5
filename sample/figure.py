"""A stick figure on a checkered floor, seen by a camera that follows it. Drawn with Pillow.

The camera keeps its direction (from the front, a little from the left and above), so turns of the
body stay visible, and moves with the smoothed path of the root.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from data_loaders.skeleton import Skeleton

if TYPE_CHECKING:  # Pillow is an extra; its absence is told by sample.video
    from PIL import Image, ImageDraw

Color = tuple[int, int, int]
BACKGROUND: Color = (248, 249, 251)
TORSO: Color = (45, 55, 72)
LEFT: Color = (37, 122, 214)
RIGHT: Color = (226, 96, 38)
TILE: Color = (221, 227, 236)
SHADOW: Color = (203, 210, 221)
PATH: Color = (122, 134, 154)
COLORS = {"left": LEFT, "right": RIGHT, "middle": TORSO}

AZIMUTH, ELEVATION = math.radians(32), math.radians(16)
DISTANCE = 9.0  # metres from the camera to its target
TILE_SIZE, FLOOR_RADIUS = 0.5, 3.5  # metres
SMALLEST_VIEW = 1.7  # metres: a crouching body is not enlarged further
GHOST_INTERVAL, GHOSTS = 0.5, 4  # seconds between earlier poses, and how many are shown
CAMERA_SMOOTHING = 0.4  # seconds
OVERSAMPLING = 3  # drawn larger and averaged, against jagged lines


def view_matrix() -> np.ndarray:
    """Rows: to the right, up, and towards the camera ``[3, 3]``."""
    right = np.array([math.cos(AZIMUTH), 0.0, -math.sin(AZIMUTH)])
    toward = np.array(
        [
            math.sin(AZIMUTH) * math.cos(ELEVATION),
            math.sin(ELEVATION),
            math.cos(AZIMUTH) * math.cos(ELEVATION),
        ]
    )
    return np.stack([right, np.cross(toward, right), toward])


VIEW = view_matrix()


def project(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points ``[..., 3]`` to the image plane ``[..., 2]`` (metres at the target, y up) and depth
    ``[...]`` (larger = nearer)."""
    view = (points - target) @ VIEW.T
    return view[..., :2] * (DISTANCE / (DISTANCE - view[..., 2:])), view[..., 2]


def blend(color: Color, amount: float) -> Color:
    """`color` over the background; 0 = invisible, 1 = itself."""
    return tuple(round(b + amount * (c - b)) for c, b in zip(color, BACKGROUND, strict=True))


def side_of(joint_name: str) -> str:
    """``left``, ``right`` or ``middle``."""
    if joint_name.startswith(("left", "L")):
        return "left"
    return "right" if joint_name.startswith(("right", "R")) else "middle"


def spine_of(skeleton: Skeleton) -> tuple[int, ...]:
    """The chain from the root to the head."""
    names = skeleton.joint_names
    return next(c for c in skeleton.chains if all(side_of(names[j]) == "middle" for j in c))


class Stage:
    """One motion ``[T, J, 3]`` in the units of its skeleton, drawn frame by frame."""

    def __init__(self, joints: np.ndarray, skeleton: Skeleton, fps: float) -> None:
        self.joints = np.asarray(joints, np.float64) / skeleton.units_per_metre
        self.fps = fps
        self.bones = list(enumerate(skeleton.parents))[1:]
        self.colors = [COLORS[side_of(name)] for name in skeleton.joint_names]
        *_, self.neck, self.head = spine_of(skeleton)
        path = gaussian_filter1d(self.joints[:, 0], CAMERA_SMOOTHING * fps, axis=0, mode="nearest")
        path[:, 1] = max(self.joints[..., 1].max(), SMALLEST_VIEW) / 2
        self.targets = path

    def __len__(self) -> int:
        return len(self.joints)

    def extent(self) -> float:
        """Half the side in metres of a square view that never cuts the body off."""
        plane, _ = project(self.joints, self.targets[:, None])
        return max(float(np.abs(plane).max()) + 0.2, SMALLEST_VIEW / 2)

    def draw(self, frame: int, size: int, extent: float) -> "Image.Image":
        """The view of one frame as a square image; frames beyond the last repeat it."""
        from PIL import Image, ImageDraw

        frame = min(frame, len(self) - 1)
        pixels = size * OVERSAMPLING
        image = Image.new("RGB", (pixels, pixels), BACKGROUND)
        pen = _Pen(ImageDraw.Draw(image), pixels, extent, self.targets[frame])
        _draw_floor(pen)
        self._draw_path(pen, frame)
        self._draw_shadow(pen, frame)
        step = max(1, round(GHOST_INTERVAL * self.fps))
        for age in range(GHOSTS, 0, -1):
            if frame >= age * step:
                self._draw_body(pen, frame - age * step, 0.3 * (1 - age / (GHOSTS + 1)))
        self._draw_body(pen, frame, 1.0)
        return image.reduce(OVERSAMPLING)

    def _draw_path(self, pen: "_Pen", frame: int) -> None:
        """The way of the root on the floor: behind in full, ahead faintly."""
        ground = self.joints[:, 0] * [1.0, 0.0, 1.0]
        plane, _ = pen.project(ground)
        pen.line(plane[frame:], blend(PATH, 0.25), 0.012)
        pen.line(plane[: frame + 1], blend(PATH, 0.8), 0.018)

    def _draw_shadow(self, pen: "_Pen", frame: int) -> None:
        plane, _ = pen.project(self.joints[frame] * [1.0, 0.0, 1.0])
        for joint, parent in self.bones:
            pen.limb(plane[parent], plane[joint], SHADOW, 0.05)

    def _draw_body(self, pen: "_Pen", frame: int, strength: float) -> None:
        """Bones from far to near."""
        plane, depth = pen.project(self.joints[frame])
        bones = sorted(self.bones, key=lambda bone: depth[bone[0]] + depth[bone[1]])
        for joint, parent in bones:
            thickness = 0.065 if self.colors[joint] == TORSO else 0.055
            color = blend(self.colors[joint], strength)
            pen.limb(plane[parent], plane[joint], color, thickness)
            if joint == self.head:
                crown = plane[joint] + 0.35 * (plane[joint] - plane[self.neck])
                pen.dot(crown, color, 0.095)


class _Pen:
    """Draws on the image plane of one frame, in metres."""

    def __init__(
        self, draw: "ImageDraw.ImageDraw", pixels: int, extent: float, target: np.ndarray
    ) -> None:
        self.canvas, self.target = draw, target
        self.scale = pixels / (2 * extent)
        self.origin = np.array([pixels / 2, pixels / 2])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points ``[..., 3]`` to pixels ``[..., 2]`` and depth ``[...]``."""
        plane, depth = project(points, self.target)
        return self.origin + plane * [self.scale, -self.scale], depth

    def line(self, pixels: np.ndarray, color: Color, width: float) -> None:
        if len(pixels) > 1:
            flat = pixels.ravel().tolist()
            self.canvas.line(flat, color, max(1, round(width * self.scale)), "curve")

    def limb(self, start: np.ndarray, end: np.ndarray, color: Color, width: float) -> None:
        """A line with round ends."""
        self.line(np.stack([start, end]), color, width)
        self.dot(start, color, width / 2)
        self.dot(end, color, width / 2)

    def dot(self, center: np.ndarray, color: Color, radius: float) -> None:
        x, y = center.tolist()
        r = radius * self.scale
        self.canvas.ellipse((x - r, y - r, x + r, y + r), fill=color)


@lru_cache(maxsize=1)
def _tile_corners() -> np.ndarray:
    """Corners ``[N, 4, 3]`` of the dark tiles around the origin, two tiles wider than shown."""
    count = math.ceil(FLOOR_RADIUS / TILE_SIZE) + 2
    index = np.arange(-count, count)
    x, z = (grid.ravel() for grid in np.meshgrid(index, index))
    dark = (x + z) % 2 == 0
    lower = np.stack([x[dark], np.zeros(dark.sum()), z[dark]], axis=-1)
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]])
    return TILE_SIZE * (lower[:, None] + square)


def _draw_floor(pen: _Pen) -> None:
    """A checkerboard fixed to the world that fades out with the distance from the target."""
    period = 2 * TILE_SIZE  # moving by a whole period keeps dark tiles dark
    ground = pen.target * [1.0, 0.0, 1.0]
    corners = _tile_corners() + np.floor(ground / period) * period
    distance = np.linalg.norm(corners.mean(axis=1) - ground, axis=-1)
    near = distance < FLOOR_RADIUS
    plane, _ = pen.project(corners[near])
    for tile, gone in zip(plane, distance[near] / FLOOR_RADIUS, strict=True):
        pen.canvas.polygon(tile.ravel().tolist(), fill=blend(TILE, 1 - gone**2))
