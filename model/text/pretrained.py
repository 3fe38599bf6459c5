"""Models and tokenizers of `transformers`, from a folder or the hub."""

from pathlib import Path
from typing import Any

from utils.errors import UserError


def from_pretrained(loader: Any, path: str, what: str) -> Any:
    """From the folder or the hub's cache, else from the hub.

    Raises UserError that names `what` when it cannot be loaded.
    """
    try:
        return loader.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        problem = error
    try:
        if Path(path).exists():
            raise problem
        from transformers import AutoConfig

        AutoConfig.from_pretrained(path)  # without a network it gives up soon; tokenizers do not
        return loader.from_pretrained(path)
    except (OSError, ValueError) as error:
        where = "folder" if Path(path).exists() else "folder or hub model"
        raise UserError(
            f"{what} text encoder: cannot load the {where} {path} ({str(error).splitlines()[0]}); "
            "pass --text_encoder_path FOLDER, or train with --text_encoder_type builtin"
        ) from None
