"""Batches of motions cut into network calls that hold motions of similar length."""

import math
from bisect import bisect_left
from functools import partial


def split_by_length(
    lengths: list[int], frames: int, trim: bool, budget: int, spill: int = 0
) -> list[tuple[list[int], int]]:
    """Rows of one network call each, and the frames ``<= frames`` that it computes.

    A call has at most `budget` frames in all (or one row). With `trim`, rows of similar length go
    together and no frames are computed beyond their longest, except `spill`.
    """
    if not trim:
        count = max(1, budget // frames)
        rows = list(range(len(lengths)))
        return [(rows[i : i + count], frames) for i in range(0, len(rows), count)]
    groups: list[tuple[list[int], int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if groups and (len(groups[-1][0]) + 1) * groups[-1][1] <= budget:
            groups[-1][0].append(row)
        else:
            groups.append(([row], min(frames, lengths[row] + spill)))
    return groups


def balanced_groups(
    lengths: list[int], frames: int, trim: bool, budget: int, threads: int, spill: int = 0
) -> list[tuple[list[int], int]]:
    """`split_by_length` for calls that run `threads` at once, in rounds.

    As many rounds as `budget` demands, and then the smallest budget that needs no more of them, so
    that no thread waits long for another. What fits in one call stays one.
    """
    split = partial(split_by_length, lengths, frames, trim, spill=spill)
    groups = split(budget)
    if threads == 1 or len(groups) == 1:
        return groups
    most = threads * math.ceil(len(groups) / threads)
    return split(bisect_left(range(budget), True, key=lambda size: len(split(size)) <= most))
