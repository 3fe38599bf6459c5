"""Clips of a length that the loader takes: cut, held at the last pose, or refused."""

from dataclasses import dataclass

import numpy as np

from data_loaders.skeleton import HUMANML
from utils.errors import UserError
from utils.options import option

LONGEST_KEPT = HUMANML.max_length + 3  # the loader crops lengths down to a multiple of four


class TooShort(UserError):
    """A clip below the minimum length."""


@dataclass
class LengthOptions:
    pad_short: bool = option(False, "hold the last pose of clips that are too short")
    min_seconds: float = option(1.0, "shortest clip that --pad_short accepts", minimum=0.1)
    long: str = option(
        "crop", "keep the start of a long clip, or all pieces", choices=("crop", "split")
    )


def fit_length(joints: np.ndarray, options: LengthOptions) -> list[np.ndarray]:
    """Cut or hold a clip [T, 22, 3] so that its T - 1 feature rows suit the loader.

    Raises TooShort when it is below the minimum length and may not be padded.
    """
    rows, shortest, longest = len(joints) - 1, HUMANML.min_length, HUMANML.max_length
    if rows < shortest:
        needed = options.min_seconds * HUMANML.fps if options.pad_short else shortest
        if rows < needed:
            raise TooShort(f"{rows} frames at 20 fps, fewer than {needed:g}")
        return [np.concatenate([joints, np.repeat(joints[-1:], shortest - rows, axis=0)])]
    if rows <= LONGEST_KEPT:
        return [joints]
    starts = range(0, rows, longest) if options.long == "split" else [0]
    pieces = [joints[start : start + longest + 1] for start in starts]
    return [piece for piece in pieces if len(piece) > shortest]
