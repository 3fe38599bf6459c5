"""What processes that train one network together must exchange."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from utils.errors import UserError


@contextmanager
def together() -> Iterator[None]:
    """Around what needs all processes. Raises UserError in one line where another one has ended."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise UserError(
            f"another process of this training has ended, so this one ends too ({reason}); the "
            "same command with --resume goes on from the last state"
        ) from None


def average_gradients(accelerator: Accelerator, module: nn.Module, loss: Tensor) -> Tensor:
    """Mean of the gradients over processes, and the mean of their losses, which is returned.

    Done by hand because the preference losses call the network through its generator, past the
    forward hook that DistributedDataParallel relies on.
    """
    loss = loss.detach()
    if accelerator.num_processes == 1:
        return loss
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    # One message, not hundreds
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.float().reshape(1)])
    with together():
        summed = accelerator.reduce(flat, "mean")
    means = summed[:-1].split([gradient.numel() for gradient in gradients])
    for parameter, mean in zip(parameters, means, strict=True):
        parameter.grad = mean.view_as(parameter)
    return summed[-1]


def gather_states(accelerator: Accelerator, state: dict[str, Any]) -> list[dict[str, Any]]:
    """What every process must remember, in the order of the processes; the same in all."""
    if accelerator.num_processes == 1:
        return [state]
    with together():
        return gather_object([state])
