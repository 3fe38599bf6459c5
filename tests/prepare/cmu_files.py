"""A small CMU database and a small copy of HumanML3D's repository, for tests."""

import csv
import shutil
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.data_loaders.asf_files import Bone, amc_text, asf_text
from tests.paths import CMU_DIR

UNIT = 0.0254 / 0.45  # metres
STANDING = 17.5  # units of the root above the floor
Frame = dict[str, list[float]]


def side(letter: str, sign: float) -> list[Bone]:
    return [
        Bone(f"{letter}hipjoint", "root", (0.6 * sign, -0.8, 0.0), 1.9),
        Bone(f"{letter}femur", f"{letter}hipjoint", (0.0, -1.0, 0.0), 7.2, "rx ry rz"),
        Bone(f"{letter}tibia", f"{letter}femur", (0.0, -1.0, 0.0), 7.4, "rx"),
        Bone(f"{letter}foot", f"{letter}tibia", (0.0, -0.6, 0.8), 2.4),
        Bone(f"{letter}clavicle", "thorax", (sign, 0.0, 0.0), 3.5),
        Bone(f"{letter}humerus", f"{letter}clavicle", (0.0, -1.0, 0.0), 5.0, "rx ry rz"),
        Bone(f"{letter}radius", f"{letter}humerus", (0.0, -1.0, 0.0), 3.4),
        Bone(f"{letter}wrist", f"{letter}radius", (0.0, -1.0, 0.0), 1.7),
    ]


BODY = [
    Bone("lowerback", "root", (0.0, 1.0, 0.0), 2.0, "rx ry rz"),
    Bone("upperback", "lowerback", (0.0, 1.0, 0.0), 2.0),
    Bone("thorax", "upperback", (0.0, 1.0, 0.0), 2.1),
    Bone("lowerneck", "thorax", (0.0, 1.0, 0.0), 1.7),
    Bone("upperneck", "lowerneck", (0.0, 0.8, 0.6), 1.7),
    *side("l", 1.0),
    *side("r", -1.0),
]


def perform(
    seconds: float, fps: int, speed: float = 1.0, spin: float = 0.0, kick: float = 0.0
) -> list[Frame]:
    """Somebody who walks or runs (m/s), turns (degrees per second) and lifts a leg (degrees)."""
    frames = []
    heading, x, z = 0.0, 0.0, 0.0
    for t in np.arange(round(seconds * fps)) / fps:
        swing = np.sin(2 * np.pi * (1.0 + 0.3 * speed) * t)
        lifted = kick * np.sin(np.pi * t / seconds) ** 2
        frames.append(
            {
                "root": [x, STANDING + 0.3 * abs(swing), z, 0.0, heading, 3.0 * swing],
                "lowerback": [4.0, 2.0 * swing, 0.0],
                "lfemur": [-25.0 * swing - lifted, 0.0, 0.0],
                "ltibia": [10.0 + 8.0 * swing],
                "lhumerus": [30.0 * swing, 0.0, 5.0],
                "rfemur": [25.0 * swing, 0.0, 0.0],
                "rtibia": [10.0 - 8.0 * swing],
                "rhumerus": [-20.0 * swing, 0.0, -5.0],
            }
        )
        heading += spin / fps
        x += speed / UNIT / fps * np.sin(np.radians(heading))
        z += speed / UNIT / fps * np.cos(np.radians(heading))
    return frames


def write_trial(mocap: Path, trial: str, frames: Sequence[Frame]) -> Path:
    """``mocap/subjects/07/07_01.amc`` with its skeleton, as the database has them."""
    subject = trial.split("_")[0]
    folder = mocap / "subjects" / subject
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{subject}.asf").write_text(asf_text(BODY))
    path = folder / f"{trial}.amc"
    path.write_text(amc_text(frames))
    return path


@dataclass(frozen=True)
class Row:
    """A clip: where HumanML3D cuts it, and its captions (none = no caption file)."""

    clip: str
    trial: str
    start: int
    end: int
    captions: tuple[str, ...] = ()
    mirrored: tuple[str, ...] = ()
    split: str = "train"
    folder: str = ""  # the subject's, unless given


def write_humanml(folder: Path, rows: Sequence[Row]) -> Path:
    """index.csv, split lists and texts/, as download_humanml_texts.sh puts them."""
    (folder / "texts").mkdir(parents=True, exist_ok=True)
    with open(folder / "index.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["source_path", "start_frame", "end_frame", "new_name"])
        table.writerow(["./pose_data/KIT/3/kick_high_left02_poses.npy", 20, 117, "000000.npy"])
        for row in rows:
            subject = row.folder or row.trial.split("_")[0]
            source = f"./pose_data/CMU/{subject}/{row.trial}_poses.npy"
            table.writerow([source, row.start, row.end, f"{row.clip}.npy"])
    for split in ("train", "val", "test"):
        names = [f"{m}{row.clip}\n" for row in rows if row.split == split for m in ("", "M")]
        (folder / f"{split}.txt").write_text("".join(names))
    for row in rows:
        for name, captions in ((row.clip, row.captions), (f"M{row.clip}", row.mirrored)):
            if captions:
                lines = [f"{caption}#own/NOUN tag/NOUN#0.0#0.0\n" for caption in captions]
                (folder / "texts" / f"{name}.txt").write_text("".join(lines))
    return folder


def as_clone(plain: Path, clone: Path) -> Path:
    """The same files where a clone of the repository has them, with the captions in an archive."""
    (clone / "HumanML3D").mkdir(parents=True)
    shutil.copy(plain / "index.csv", clone)
    for split in ("train", "val", "test"):
        shutil.copy(plain / f"{split}.txt", clone / "HumanML3D")
    with zipfile.ZipFile(clone / "HumanML3D" / "texts.zip", "w") as archive:
        for path in (plain / "texts").iterdir():
            archive.write(path, f"texts/{path.name}")
    return clone


def as_zip(clone: Path, path: Path) -> Path:
    """A clone as the hub's archive of it, in one top folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in clone.rglob("*"):
            archive.write(file, f"HumanML3D-main/{file.relative_to(clone)}")
    return path


def unpack_shared(folder: Path) -> tuple[Path, Path]:
    """The trials and captions of the test material, as `mocap` and `humanml` folders."""
    for name in ("amc", "bvh"):
        with tarfile.open(CMU_DIR / f"motions-{name}.tar.xz") as archive:
            archive.extractall(folder / "mocap", filter="data")
    captions = defaultdict(list)
    for row in read_table("captions.csv"):
        captions[row["clip"]].append(row["text"].replace("#", " "))
    rows = [
        Row(
            row["clip"],
            row["trial"],
            int(row["start_frame"]),
            int(row["end_frame"]),
            tuple(captions[row["clip"]]),
            split=row["split"],
            folder=row["source_path"].split("/")[3],
        )
        for row in read_table("index.csv")
    ]
    return folder / "mocap", write_humanml(folder / "humanml", rows)


def read_table(name: str) -> list[dict[str, str]]:
    with open(CMU_DIR / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
