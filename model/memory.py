"""Network calls that need too much memory, done in halves."""

from collections.abc import Callable

import torch
from torch import Tensor

from utils.troubles import is_out_of_memory

Call = Callable[..., Tensor]  # of tensors ``[B, ...]``, all with one row per row of the result


def within_memory(make: Callable[[Tensor], Call], rows: Tensor) -> Call:
    """The call that `make` gives for `rows`; where memory does not suffice, from then on those of
    both halves of the rows, one after the other.

    Noise is drawn outside of such calls, so samples stay the same up to the rounding of a product
    of another size. With gradients, and for a single row, the error is raised.
    """
    whole, middle, halves = make(rows), len(rows) // 2, list[Call]()

    def call(*inputs: Tensor) -> Tensor:
        if not halves:
            try:
                return whole(*inputs)
            except RuntimeError as error:
                if not (is_out_of_memory(error) and middle) or torch.is_grad_enabled():
                    raise
            # out of the except block, whose traceback keeps the tensors of the failed call
            halves.extend(within_memory(make, part) for part in (rows[:middle], rows[middle:]))
            torch.cuda.empty_cache()
        first, second = halves
        one = first(*(tensor[:middle] for tensor in inputs))
        return torch.cat([one, second(*(tensor[middle:] for tensor in inputs))])

    return call


def rows_of(batch: Tensor) -> Tensor:
    """The numbers ``[B]`` of the rows of a batch, on its device."""
    return torch.arange(len(batch), device=batch.device)
