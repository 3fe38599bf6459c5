"""Loading weights into a network that they must fit exactly, and saying where they do not."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from utils.errors import UserError

NAMED = 4  # keys that a message names before it counts the rest


def load_strictly(
    module: nn.Module,
    state: Mapping[str, Tensor],
    complaint: str,
    recomputed: Collection[str] = (),
) -> None:
    """Load `state` into `module`; keys in `recomputed` keep what the module has made itself.

    Raises UserError, `complaint` and then the keys that are missing, unknown or of another shape.
    """
    given = {k: v for k, v in state.items() if k not in recomputed}
    wanted = {k: v for k, v in module.state_dict().items() if k not in recomputed}
    problems = {
        "missing": sorted(set(wanted) - set(given)),
        "unknown": sorted(set(given) - set(wanted)),
        "of another shape": [k for k in wanted if k in given and given[k].shape != wanted[k].shape],
    }
    found = [f"{what}: {_names(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise UserError(f"{complaint} ({'; '.join(found)})")
    module.load_state_dict(given, strict=False)


def _names(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more
