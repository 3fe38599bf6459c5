"""Network calls of MDM's sampling: guidance, groups of similar length, and threads."""

from functools import partial

import torch
from torch import Tensor

from diffusion.samplers import Denoiser
from model.batching import balanced_groups
from model.mdm.network import MDM
from model.memory import rows_of, within_memory
from model.text.encoders import Condition
from model.worker_threads import run_side_by_side
from utils.masks import length_mask


def guided_denoiser(
    model: MDM, condition: Condition | None, mask: Tensor, guidance: float | Tensor
) -> Denoiser:
    """x0 with classifier-free guidance u + s (c - u), both passes in one doubled batch.

    `guidance` is a number or ``[B]``. 1 needs no unconditional pass, 0 no conditional one.
    """
    if condition is None or (not isinstance(guidance, Tensor) and guidance == 1):
        return lambda x, t: model(x, t, condition, mask).to(x.dtype)
    dropped = torch.ones(len(mask), dtype=torch.bool, device=mask.device)
    if not isinstance(guidance, Tensor) and guidance == 0:
        return lambda x, t: model(x, t, condition, mask, dropped).to(x.dtype)
    scale = guidance.view(-1, 1, 1) if isinstance(guidance, Tensor) else guidance
    if model.config.arch == "gru":  # its recurrence runs over the batch: doubling would mix passes
        return lambda x, t: torch.lerp(
            model(x, t, condition, mask, dropped), model(x, t, condition, mask), scale
        )
    both, masks = condition.repeat(2), mask.repeat(2, 1)
    drop = torch.cat([~dropped, dropped])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        doubled = model(x.repeat(2, 1, 1), t.repeat(2), both, masks, drop).to(x.dtype)
        conditional, unconditional = doubled.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return denoise


def grouped_denoiser(
    model: MDM,
    condition: Condition,
    lengths: Tensor,
    frames: int,
    guidance: float,
    budget: int,
    threads: int = 1,
    spill: int = 0,
) -> Denoiser:
    """`guided_denoiser` in calls of at most `budget` frames, both passes of guidance counted.

    Where the model masks frames, the calls group motions of similar length, and x0 is zero where
    none of a group needs it. With several `threads` the calls run side by side, on a CPU.
    """
    mask = length_mask(lengths, frames)
    if model.config.arch == "gru":  # its recurrence runs over the batch, which must stay whole
        return guided_denoiser(model, condition, mask, guidance)
    trim = model.config.mask_frames
    groups = balanced_groups(lengths.tolist(), frames, trim, budget // 2, threads, spill)

    def call(rows: Tensor, size: int) -> Denoiser:
        return guided_denoiser(model, condition[rows], mask[rows, :size], guidance)

    if len(groups) == 1 and groups[0][1] == frames:
        return within_memory(partial(call, size=frames), rows_of(mask))
    calls = []
    for numbers, size in groups:
        rows = torch.tensor(numbers, device=mask.device)
        calls.append((rows, size, within_memory(partial(call, size=size), rows)))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        x0 = torch.zeros_like(x)

        def fill(rows: Tensor, size: int, part: Denoiser) -> None:
            x0[rows, :size] = part(x[rows, :size], t[rows])

        # with gradients, several threads would write one graph
        alone = torch.is_grad_enabled() or len(calls) == 1
        run_side_by_side([partial(fill, *call) for call in calls], 1 if alone else threads)
        return x0

    return denoise
