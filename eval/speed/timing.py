"""How long an item takes on both of its paths, and how near that is to what the device can do."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from eval.speed.workload import Item
from utils.tables import markdown_table


@dataclass(frozen=True)
class Timing:
    """Seconds: median and distance of the quartiles; share of the peak, where work is counted."""

    median: float
    spread: float
    share: float | None

    @staticmethod
    def of(seconds: list[float], flops: float, peak: float) -> "Timing":
        median = statistics.median(seconds)
        quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [median] * 3
        share = flops / median / peak if flops else None
        return Timing(median, quartiles[2] - quartiles[0], share)


@dataclass(frozen=True)
class Row:
    """One item; memory is the peak in GB of the GPU, or of the whole process so far on a CPU."""

    name: str
    fast: Timing
    plain: Timing | None
    memory: float

    @property
    def gain(self) -> float | None:
        return None if self.plain is None else self.plain.median / self.fast.median


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations per second of a square product, best of several."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = min(seconds_of(lambda: a @ b, device) for _ in range(8))
    return 2 * size**3 / best


def peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure_item(
    item: Item, device: torch.device, repetitions: int, peaks: dict[torch.dtype, float]
) -> Row:
    """Both paths in turn; the first turn warms up and is not counted."""
    fast: list[float] = []
    plain: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    fast.append(seconds_of(item.fast, device))
    memory = peak_memory(device)
    for turn in range(repetitions + 1):
        if turn:
            fast.append(seconds_of(item.fast, device))
        if item.plain is not None:
            plain.append(seconds_of(item.plain, device))
    return Row(
        item.name,
        Timing.of(fast[1:], item.flops, peaks[item.dtype]),
        Timing.of(plain[1:], item.plain_flops, peaks[torch.float32]) if plain else None,
        memory,
    )


def format_rows(rows: list[Row]) -> str:
    """A Markdown table."""
    header = ["work", "time (s)", "+-", "of peak", "plain (s)", "+-", "of peak"]
    cells = []
    for row in rows:
        gain = "-" if row.gain is None else f"{row.gain:.1f}x"
        cells.append([row.name, *_cells(row.fast), *_cells(row.plain), gain, f"{row.memory:.2f}"])
    return markdown_table([*header, "gain", "peak memory (GB)"], cells)


def _cells(timing: Timing | None) -> list[str]:
    if timing is None:
        return ["-"] * 3
    share = "-" if timing.share is None else f"{timing.share:.0%}"
    return [f"{timing.median:.4g}", f"{timing.spread:.2g}", share]
