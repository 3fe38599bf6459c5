"""ASF and AMC files written from a description, for tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROOT_ORDER = "TX TY TZ RX RY RZ"


@dataclass(frozen=True)
class Bone:
    """direction: unit vector at rest. axis: three angles in the order of `order`."""

    name: str
    parent: str
    direction: tuple[float, float, float]
    length: float
    dofs: str = ""
    axis: tuple[float, float, float] = (0.0, 0.0, 0.0)
    order: str = "XYZ"


def asf_text(
    bones: Sequence[Bone],
    unit: float = 0.45,
    angle: str = "deg",
    root_order: str = ROOT_ORDER,
    position: Sequence[float] = (0.0, 0.0, 0.0),
) -> str:
    lines = [
        "# a comment",
        ":version 1.10",
        ":name BODY",
        ":units",
        "  mass 1.0",
        f"  length {unit}",
        f"  angle {angle}",
        ":documentation",
        "   begin anything, end with nothing",
        ":root",
        f"   order {root_order}",
        "   axis XYZ",
        f"   position {_words(position)}",
        "   orientation 0 0 0",
        ":bonedata",
    ]
    for number, bone in enumerate(bones, start=1):
        lines += [
            "  begin",
            f"     id {number}",
            f"     name {bone.name}",
            f"     direction {_words(bone.direction)}",
            f"     length {bone.length!r}",
            f"     axis {_words(bone.axis)}  {bone.order}",
        ]
        if bone.dofs:
            first, *more = ["(-180.0 180.0)"] * len(bone.dofs.split())
            lines += [f"    dof {bone.dofs}", f"    limits {first}"]
            lines += [f"           {limit}" for limit in more]
        lines.append("  end")
    lines += [":hierarchy", "  begin"]
    for parent in dict.fromkeys(bone.parent for bone in bones):
        children = " ".join(bone.name for bone in bones if bone.parent == parent)
        lines.append(f"    {parent} {children}")
    return "\n".join([*lines, "  end", ""])


def amc_text(frames: Sequence[Mapping[str, Sequence[float]]], header: str = ":DEGREES") -> str:
    """Frames: values of ``root`` and of every bone with degrees of freedom, by name."""
    lines = ["#!OML:ASF", ":FULLY-SPECIFIED", *([header] if header else [])]
    for number, frame in enumerate(frames, start=1):
        lines += [str(number), *(f"{name} {_words(values)}" for name, values in frame.items())]
    return "\n".join([*lines, ""])


def _words(values: Sequence[float]) -> str:
    return " ".join(repr(float(value)) for value in values)
