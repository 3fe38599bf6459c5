"""The sinusoidal positional table (Vaswani et al. 2017), interleaved."""

import math

import torch
from torch import Tensor


def sinusoidal_table(length: int, width: int) -> Tensor:
    """``[length, width]``: column 2i = sin(p w_i), 2i + 1 = cos(p w_i), w_i = 10000^(-2i/width)."""
    position = torch.arange(length).float().unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
    table = torch.zeros(length, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    return table
