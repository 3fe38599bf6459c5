"""Calls of the motion VAE in groups of similar length, so that little padding is computed.

The results are those of one call for all. On a CPU with several threads the calls run side by side;
where memory does not suffice for one, it is done in halves.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from model.batching import balanced_groups
from model.distribution import Distribution
from model.latent.vae import MotionVAE
from model.memory import within_memory
from model.worker_threads import run_side_by_side
from utils.masks import length_mask

# The most frames of one call, for a CPU's caches and a GPU's memory.
FRAMES_PER_CALL = {"cpu": 2048, "cuda": 65_536}


def decode(vae: MotionVAE, latent: Tensor, lengths: Tensor) -> Tensor:
    """`MotionVAE.decode` of latents ``[B, n, d]``; gradient flows where they carry one."""
    differentiated = torch.is_grad_enabled() and latent.requires_grad
    frames = int(lengths.max())
    motion = latent.new_zeros(len(latent), frames, vae.config.num_features)

    def fill(rows: Tensor, size: int) -> None:
        part = within_memory(lambda few: partial(vae.decode, latent[few], lengths[few], size), rows)
        motion[rows, :size] = part().to(motion.dtype)

    with torch.set_grad_enabled(differentiated):
        _run(fill, lengths, frames)
    return motion


@torch.no_grad()
def distribution(vae: MotionVAE, motion: Tensor, lengths: Tensor) -> Distribution:
    """`MotionVAE.distribution` of normalised motions ``[B, T, D]``."""
    shape = (len(motion), vae.config.latent_tokens, vae.config.latent_dim)
    found = Distribution(motion.new_zeros(shape), motion.new_zeros(shape))

    def encode(rows: Tensor, size: int) -> Tensor:
        part = vae.distribution(motion[rows, :size], length_mask(lengths[rows], size))
        return torch.cat([part.mean, part.logvar], dim=1)

    def fill(rows: Tensor, size: int) -> None:
        part = within_memory(lambda few: partial(encode, few, size), rows)()
        found.mean[rows], found.logvar[rows] = part.to(motion.dtype).chunk(2, dim=1)

    _run(fill, lengths, motion.shape[1])
    return found


def _run(fill: Callable[[Tensor, int], None], lengths: Tensor, frames: int) -> None:
    """``fill(rows, frames)`` for all groups of rows."""
    on_cpu = lengths.device.type == "cpu"
    # with gradients, several threads would write one graph
    threads = torch.get_num_threads() if on_cpu and not torch.is_grad_enabled() else 1
    budget = FRAMES_PER_CALL["cpu" if on_cpu else "cuda"]
    groups = balanced_groups(lengths.tolist(), frames, True, budget, threads)
    calls = [partial(fill, torch.tensor(rows, device=lengths.device), n) for rows, n in groups]
    run_side_by_side(calls, threads if len(calls) > 1 else 1)
