"""The statistics that MoMask normalises motions by."""

from dataclasses import replace

from torch import Tensor

from data_loaders.normalizer import Statistics

FEATURE_BIAS = 5.0
ROOT, CONTACTS = slice(0, 4), slice(-4, None)


def biased(std: Tensor, times: int) -> Tensor:
    """Deviations ``[D]``, those of root and contacts divided `times` times by 5."""
    std = std.clone()
    for columns in (ROOT, CONTACTS):
        std[columns] /= FEATURE_BIAS**times
    return std


def momask_statistics(dataset: Statistics) -> Statistics:
    """Of a dataset's statistics. Upstream divides for the train and again for the val set, in
    place, so that the published models use a twenty-fifth; the evaluators' statistics do, too."""
    return replace(dataset, name="momask_stats", std=biased(dataset.std, times=2))
