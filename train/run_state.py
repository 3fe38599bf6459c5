"""What a run needs to go on: two generations of its state, and the options it was made with.

``resume.pt`` is the newest state and ``resume_previous.pt`` the one before. Both carry their
SHA-256; where the newest is damaged, the run goes on from the other one.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import load_tensors, read_json, save_tensors
from utils.options import changed_options

STATE_FILE, PREVIOUS_FILE = "resume.pt", "resume_previous.pt"
# What every state holds; the rest came with later versions and has a default
REQUIRED = {"optimizer", "step", "module", "average", "average_updates", "best"}


def states_in(folder: Path) -> list[Path]:
    """The files of a run's states, the newest first."""
    return [path for name in (STATE_FILE, PREVIOUS_FILE) if (path := folder / name).is_file()]


def remove_states(folder: Path) -> None:
    for path in states_in(folder):
        path.unlink()


def check_resumable(options: Any, folders: Sequence[str]) -> None:
    """Is there a state to resume in one of the run's `folders`, and are its options the same?

    They are compared with ``args.json``, which is written before every state. Raises UserError
    otherwise.
    """
    save_dir = Path(options.save_dir)
    if not any(states_in(save_dir / folder) for folder in folders):
        raise UserError(
            f"--resume: {save_dir} holds no {STATE_FILE}, so there is nothing to go on from; "
            "start without --resume"
        )
    record = save_dir / "args.json"
    stored = read_json(record)
    if not isinstance(stored, dict):
        raise UserError(f"--resume: {record} is no dictionary of options")
    if changed := changed_options(stored, options, resumed=True):
        raise UserError(
            f"--resume: {save_dir} was begun with other options ({', '.join(changed)}); repeat "
            "those, or name another --save_dir"
        )


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """The newest state; the one before is kept. Raises UserError for values that are not finite."""
    bad = next((name for name, value in tensors_in(state) if not value.isfinite().all()), "")
    if bad:
        raise UserError(
            f"after step {state['step']} the state {bad} is not finite and was not saved; start "
            "again with a lower --lr"
        )
    save_tensors(folder / STATE_FILE, state, previous=folder / PREVIOUS_FILE)


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors in nested containers, by their keys."""
    if isinstance(value, Tensor) and value.is_floating_point():
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from tensors_in(part, f"{name}/{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for key, part in enumerate(value):
            yield from tensors_in(part, f"{name}/{key}")


def read_state(folder: Path) -> tuple[dict[str, Any], str]:
    """The newest state that is sound, on the CPU, and a warning where that is the one before.

    Raises UserError where there is none.
    """
    damage: list[str] = []
    for path in states_in(folder):
        try:
            return _sound(path), "; ".join(damage)
        except UserError as error:
            damage.append(str(error))
    if damage:
        raise UserError(f"--resume: {'; '.join(damage)}")
    raise UserError(f"--resume: {folder / STATE_FILE} does not exist; start without --resume")


def _sound(path: Path) -> dict[str, Any]:
    state = load_tensors(path)
    missing = REQUIRED - set(state if isinstance(state, dict) else ())
    if missing:
        raise UserError(f"{path} is no state of a training: it lacks {', '.join(sorted(missing))}")
    if not isinstance(state["step"], int) or not isinstance(state["best"], dict | None):
        raise UserError(f"{path} is no state of a training: its step or best is of another type")
    return state


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of all weights of a module, by name; the same on every device."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def check_finite(module: nn.Module, step: int) -> None:
    """Raises UserError where a weight is NaN or infinite, so that none is ever saved."""
    state = module.state_dict()
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise UserError(
            f"after step {step} the weights {bad[0]}{more} are not finite and were not saved; "
            "start again with a lower --lr"
        )
