"""One file that shows motions in any browser: no server, no network, opened from disk.

    run = Run("SoPo", [Motion("a person waves", joints)])
    write_pages(folder, [run], HUMANML, title="My motions")

Several runs on the same captions stand side by side and play in step. The scripts are in
``assets``, the library that draws the scene in ``vendor``; every page holds all of them.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from data_loaders.facts import Fact, holds, measure
from data_loaders.skeleton import Skeleton
from export.body_plan import PLANS
from sample.figure import side_of, spine_of
from sample.viewer.packing import pack, planted_feet, quantize
from utils.errors import UserError
from utils.files import atomic_write

FOLDER = Path(__file__).parent
SCRIPTS = ("motion.js", "figure.js", "stage.js", "chooser.js", "viewer.js")
POLICY = (  # nothing may be loaded from anywhere
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
MOTIONS_PER_PAGE = 300
PAGE = "index.html"

HEAD_RADIUS = 0.105  # metres


@dataclass(frozen=True)
class Motion:
    """One motion ``[T, J, 3]`` in the units of its skeleton, and what is known of it.

    seed: of its noise. figures: name -> value, e.g. reward. facts: what the caption states; the
    page says which of them hold.
    """

    caption: str
    joints: np.ndarray
    seed: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    facts: Sequence[Fact] = ()


@dataclass(frozen=True)
class Run:
    """Motions of one source: a checkpoint, a repetition, the dataset."""

    name: str
    motions: Sequence[Motion]


def write_pages(
    folder: Path, runs: Sequence[Run], skeleton: Skeleton, title: str, limit: int = MOTIONS_PER_PAGE
) -> list[Path]:
    """``index.html`` with up to `limit` motions, ``index_2.html`` with the next, and so on.

    Each page links to the others. Raises UserError as `check_runs` does, before anything is
    written.
    """
    check_runs(runs, limit)
    rows = limit // len(runs)
    starts = range(0, len(runs[0].motions), rows)
    files = [PAGE, *(f"index_{number}.html" for number in range(2, len(starts) + 1))]
    paths = []
    for number, start in enumerate(starts):
        part = [Run(run.name, run.motions[start : start + rows]) for run in runs]
        pages = files if len(files) > 1 else []
        path = folder / files[number]
        paths.append(write_page(path, part, skeleton, title, pages=pages, number=number))
    return paths


def write_page(
    path: Path,
    runs: Sequence[Run],
    skeleton: Skeleton,
    title: str,
    *,
    pages: Sequence[str] = (),
    number: int = 0,
) -> Path:
    """Write one page, atomically; returns `path`.

    pages: the files that this one, at position `number`, belongs to. Raises UserError as
    `check_runs` does.
    """
    check_runs(runs)
    content, motions = describe(runs, skeleton)
    about = content | {"pages": list(pages), "number": number}
    page = fill_page(title, about, motions, scripts=(*SCRIPTS, "page.js"))
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def check_size(captions: int, runs: int, limit: int = MOTIONS_PER_PAGE) -> None:
    """Raises UserError when the motions of one caption alone are more than a page holds."""
    if runs > limit:
        raise UserError(
            f"{runs} motions for each of {captions} captions are more than the {limit} of a page; "
            "make fewer, or pass --page false"
        )


def check_runs(runs: Sequence[Run], limit: int = MOTIONS_PER_PAGE) -> None:
    """Raises UserError when runs hold no motion, other captions, NaN, or too many for a page."""
    if not runs or not runs[0].motions:
        raise UserError("there is no motion to show")
    captions = [motion.caption for motion in runs[0].motions]
    check_size(len(captions), len(runs), limit)
    for run in runs:
        if [motion.caption for motion in run.motions] != captions:
            raise UserError(f"run {run.name} has other captions than run {runs[0].name}")
        for motion in run.motions:
            if not len(motion.joints):
                raise UserError(f"the motion of {run.name} for {motion.caption!r} has no frame")
            if not np.isfinite(motion.joints).all():
                raise UserError(
                    f"the motion of {run.name} for {motion.caption!r} holds NaN or infinity"
                )


def describe(runs: Sequence[Run], skeleton: Skeleton) -> tuple[dict[str, Any], str]:
    """What the scripts read: a page as JSON, and its motions as `pack` gives them."""
    rows, integers, contacts = [], [], []
    for motions in zip(*(run.motions for run in runs), strict=True):
        row = []
        for motion in motions:
            joints = np.asarray(motion.joints, np.float64) / skeleton.units_per_metre
            numbers, scale = quantize(joints)
            integers.append(numbers)
            contacts.append(planted_feet(joints, skeleton))
            row.append(_about(motion, skeleton) | {"scale": scale})
        rows.append({"caption": motions[0].caption, "motions": row})
    content = {
        "fps": skeleton.fps,
        "skeleton": _about_skeleton(skeleton),
        "runs": [run.name for run in runs],
        "rows": rows,
    }
    return content, pack(integers, contacts)


def _about(motion: Motion, skeleton: Skeleton) -> dict[str, Any]:
    measured = measure(motion.joints, skeleton.fps) if motion.facts else None
    return {
        "frames": len(motion.joints),
        "seed": motion.seed,
        "figures": {name: float(value) for name, value in motion.figures.items()},
        "facts": [{"text": words(f), "holds": holds(f, measured)} for f in motion.facts],
    }


def words(fact: Fact) -> str:
    """A stated fact as a reader sees it: ``turn angle 90``, ``kneel``."""
    kind = fact.kind.replace("_", " ")
    value = f"{fact.value:g}" if isinstance(fact.value, float) else str(fact.value)
    return kind if value == "yes" else f"{kind} {value}"


def _about_skeleton(skeleton: Skeleton) -> dict[str, Any]:
    names = skeleton.joint_names
    return {
        "parents": skeleton.parents,
        "sides": [side_of(name) for name in names],
        "radii": PLANS[skeleton.name].radii,
        "head": spine_of(skeleton)[-1],
        "headRadius": HEAD_RADIUS,
        "face": skeleton.face_joints,
        "feet": [skeleton.left_foot, skeleton.right_foot],
    }


def fill_page(
    title: str,
    page: Mapping[str, Any] | None = None,
    motions: str = "",
    *,
    scripts: Sequence[str],
    form: str = "",
    policy: str = POLICY,
) -> str:
    """The page as HTML. What users wrote reaches it as text, never as markup."""
    template = Template(_asset("page.html"))
    return template.substitute(
        title=html.escape(title),
        policy=policy,
        form=form,
        style=_asset("style.css"),
        three=(FOLDER / "vendor" / "three.min.js").read_text(encoding="utf-8"),
        scripts="\n".join(_asset(name) for name in scripts),
        page=as_json(page),
        motions=motions,
    )


def as_json(value: Any) -> str:
    """JSON that no ``</script>`` or comment in a caption can end."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (FOLDER / "assets" / name).read_text(encoding="utf-8")
