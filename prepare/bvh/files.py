"""The motion files of a folder, and the names by which tables refer to them."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.options import option

SUFFIXES = {"bvh": ".bvh", "asf_amc": ".amc"}  # by --input_format


@dataclass
class BvhDirOptions:
    """For every script that reads a folder of motion capture."""

    bvh_dir: str = option("", "folder of BVH or AMC files, searched recursively", required=True)


def find_files(root: Path, suffix: str = ".bvh") -> list[Path]:
    """All such files in a folder and its subfolders, sorted.

    Raises UserError when there is none.
    """
    if not root.is_dir():
        raise UserError(f"--bvh_dir {root} is not a folder")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() == suffix)
    if not files:
        raise UserError(f"--bvh_dir {root} holds no {suffix} file, not even in its subfolders")
    return files


def match_files(names: Iterable[str], paths: Iterable[Path], root: Path) -> dict[str, Path]:
    """Find for each name of a table the file it means; names that mean none are left out.

    A name is a path relative to `root` or a base name, each with or without its extension.
    Raises UserError when a base name fits several files.
    """
    exact: dict[str, Path] = {}
    base: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        relative = path.relative_to(root)
        exact |= {relative.as_posix(): path, relative.with_suffix("").as_posix(): path}
        for name in (path.name, path.stem):
            base[name].append(path)
    found = {}
    for name in names:
        if name in exact:
            found[name] = exact[name]
        elif len(base[name]) == 1:
            found[name] = base[name][0]
        elif base[name]:
            raise UserError(
                f"{name!r} fits {len(base[name])} files, for example {base[name][0]} and "
                f"{base[name][1]}; write the path relative to {root}"
            )
    return found
