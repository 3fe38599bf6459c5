"""What a run needs to go on: a state that is sound, and the options that it was made with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import UserError
from utils.files import read_json
from utils.options import changed_options

STATE_FILE = "resume.pt"


def check_resumable(options: Any, folders: Sequence[str]) -> None:
    """Is there a state to resume in one of the run's `folders`, and are its options the same?

    They are compared with ``args.json``, which every checkpoint writes before the state. Raises
    UserError otherwise.
    """
    save_dir = Path(options.save_dir)
    if not any((save_dir / folder / STATE_FILE).is_file() for folder in folders):
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
