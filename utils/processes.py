"""What processes that train one network together must exchange."""

import torch
from accelerate import Accelerator
from torch import nn


def average_gradients(accelerator: Accelerator, module: nn.Module) -> None:
    """Mean of the gradients over processes.

    Done by hand because the preference losses call the network through its generator, past the
    forward hook that DistributedDataParallel relies on.
    """
    if accelerator.num_processes == 1:
        return
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])  # one message, not hundreds
    means = accelerator.reduce(flat, "mean").split([gradient.numel() for gradient in gradients])
    for parameter, mean in zip(parameters, means, strict=True):
        parameter.grad = mean.view_as(parameter)
