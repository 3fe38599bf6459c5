"""State dicts that must fit their network exactly."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from utils.errors import UserError


def key_problems(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Keys that are missing, unknown or of another shape, in words; empty when all fit."""
    problems = {
        "missing": sorted(set(wanted) - set(given)),
        "unknown": sorted(set(given) - set(wanted)),
        "of another shape": [k for k in wanted if k in given and given[k].shape != wanted[k].shape],
    }
    return "; ".join(
        f"{what}: {', '.join(keys[:4])}{f' and {len(keys) - 4} more' if len(keys) > 4 else ''}"
        for what, keys in problems.items()
        if keys
    )


def transformer_weights(layers: int, width: int, ff_size: int) -> int:
    """How many weights the matrices of a transformer's layers have."""
    return layers * (4 * width**2 + 2 * width * ff_size)


def check_size(weights: int, stored_bytes: int, where: str) -> None:
    """Raises UserError, which begins with `where`, when so many weights cannot be among the
    `stored_bytes` of a file: before memory is taken for them."""
    if 2 * weights > stored_bytes:  # in half precision
        raise UserError(
            f"{where}: its options are of a network with {weights} weights, more than its "
            f"{stored_bytes} bytes can hold; they are of another model"
        )


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Raises UserError that names the keys which do not fit `module`; `where` begins it."""
    if not isinstance(state, Mapping) or not all(map(torch.is_tensor, state.values())):
        raise UserError(f"{where} is no dictionary of tensors")
    found = key_problems(module.state_dict(), state)
    if found:
        raise UserError(f"{where} does not fit ({found})")
    module.load_state_dict(state)
