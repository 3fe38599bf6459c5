"""Where files are looked for that the user did not name: here, then in the project's folder."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent  # of a clone; site-packages once installed


def here_or_project(*names: str | Path) -> Path:
    """The first of `names` that exists, each in the current folder, then in the project's.

    Where none exists, the first name as it is, for the message that tells what is missing.
    """
    places = [folder / name for name in names for folder in (Path(), PROJECT_ROOT)]
    return next((place for place in places if place.exists()), Path(names[0]))
