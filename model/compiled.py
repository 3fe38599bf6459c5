"""`torch.compile` for sampling, where it works."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from utils.options import option


@dataclass
class CompileOptions:
    """For every script that samples."""

    compile: bool = option(
        False,
        "torch.compile of the denoiser for sampling, on a GPU; falls back with a warning",
        free="always",
    )


class CompiledNetwork(nn.Module):
    """A network through `torch.compile`, sharing its weights.

    Where the compiler fails (none installed, an unknown GPU), a warning says why and the network
    runs as it is from then on.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.config = network, network.config
        self._call = torch.compile(network)

    def forward(self, *arguments: Any) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # importing it takes a second

        if self._call is self.network:
            return self.network(*arguments)
        try:
            return self._call(*arguments)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"torch.compile failed, sampling without it: {reason}", stacklevel=2)
            self._call = self.network
            return self.network(*arguments)
