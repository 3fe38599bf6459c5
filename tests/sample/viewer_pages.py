"""Small pages for the tests of the viewer."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loaders.facts import Fact
from data_loaders.skeleton import HUMANML, Skeleton, forward_kinematics
from sample.viewer.page import Motion, Run, write_page

HOSTILE = "<script>document.title = 'taken'</script> </script><b>a person</b> waves & bows"
CAPTIONS = (
    "a person walks ahead",
    "a person jumps twice",
    HOSTILE,
    "eine Person geht rückwärts 走",
)


def standing(skeleton: Skeleton = HUMANML) -> np.ndarray:
    """The rest pose ``[J, 3]`` with the toes on the floor; bones of 0.1 m where none are known."""
    raw = torch.tensor(skeleton.raw_offsets)
    offsets = torch.tensor(skeleton.target_offsets) if skeleton.target_offsets else 100.0 * raw
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(1, skeleton.num_joints, 1)
    pose = forward_kinematics(identity, torch.zeros(1, 3), offsets, skeleton)[0].numpy()
    return pose - [0.0, pose[:, 1].min(), 0.0]


def walking(frames: int, speed: float = 1.2) -> np.ndarray:
    """``[T, J, 3]``: the rest pose on its way along Z at `speed` m/s."""
    way = np.arange(frames)[:, None, None] * [0.0, 0.0, speed / HUMANML.fps]
    return standing() + way


def example_runs(names: Sequence[str] = ("base", "SoPo"), rows: int = 4) -> list[Run]:
    """Rewards fall with the row for the last run; rows of 40, 50, ... frames."""

    def motion(row: int, run: int) -> Motion:
        caption = CAPTIONS[row] if row < len(CAPTIONS) else f"caption {row:03d}"
        facts = (Fact("travel", "forward"), Fact("jump_count", 2)) if row == 0 else ()
        figures = {"reward": 0.9 - 0.05 * row - 0.1 * (len(names) - 1 - run)}
        return Motion(caption, walking(40 + 10 * (row % 4)), 7, figures, facts)

    return [Run(name, [motion(row, run) for row in range(rows)]) for run, name in enumerate(names)]


def example_page(folder: Path, **changes) -> Path:
    return write_page(folder / "index.html", example_runs(**changes), HUMANML, "before <&> after")


class Scripts(HTMLParser):
    """The text of every script by its id, as a browser delimits it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.inside = ""
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs) -> None:
        values = dict(attrs)
        self.links += [str(values[name]) for name in ("src", "href") if name in values]
        self.inside = values.get("id") or f"script {len(self.found)}" if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[self.inside] = self.found.get(self.inside, "") + data


def read_page(path: Path) -> dict[str, Any]:
    """What the scripts of a page read."""
    return json.loads(Scripts(path.read_text(encoding="utf-8")).found["page-data"])
