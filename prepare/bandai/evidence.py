"""What was measured of a clip, and which facts hold of it with a margin."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_loaders.facts import Fact, Measurements, holds, measure, swap_sides
from data_loaders.features import features_to_joints, mirror_joints, process_joints
from prepare.bvh.lengths import LengthOptions, fit_length

LOADER_CROP = 7  # frames: a remainder below four, and one unit of four


@dataclass(frozen=True)
class Evidence:
    """Measurements of a clip as a whole, and of its cut and its mirrored variants."""

    whole: Measurements | None
    variants: tuple[Measurements | None, ...]
    mirrored: tuple[Measurements | None, ...]
    padded: bool  # the clip is so short that its last pose is held

    @staticmethod
    def of(joints: np.ndarray) -> "Evidence":
        """Of joints [T, 22, 3] in metres at 20 fps, before the change to the reference body."""
        (kept,) = fit_length(joints, LengthOptions(pad_short=True, min_seconds=0.0))
        variants = _measure_cuts(kept)
        mirrored = _measure_cuts(mirror_joints(torch.from_numpy(kept)))
        return Evidence(variants[0], variants, mirrored, len(kept) > len(joints))

    def supports(self, fact: Fact) -> bool:
        other = swap_sides(fact)
        return all(holds(fact, m) for m in self.variants) and all(
            holds(other, m) for m in self.mirrored
        )

    def supported(self, *facts: Fact) -> tuple[Fact, ...]:
        return tuple(fact for fact in facts if self.supports(fact))


def _measure_cuts(joints: np.ndarray | Tensor) -> tuple[Measurements | None, ...]:
    decoded = features_to_joints(process_joints(joints).features).numpy()
    return tuple(measure(part) for part in (decoded, decoded[LOADER_CROP:], decoded[:-LOADER_CROP]))
