"""Models and tokenizers of `transformers`, from a folder or the hub."""

from pathlib import Path
from typing import Any

from utils.errors import UserError


def from_pretrained(loader: Any, path: str, what: str, weights: bool = False) -> Any:
    """From the folder or the hub's cache, else from the hub.

    No code of the folder is imported or run, and `weights` are read from ``.safetensors`` alone.
    Raises UserError that names `what` when it cannot be loaded.
    """
    # Without False, transformers asks the terminal whether it may run the folder's code.
    settings: dict[str, Any] = {"trust_remote_code": False}
    if weights:
        settings["use_safetensors"] = True
    try:
        return _load(loader, path, settings)
    except Exception as error:  # a damaged folder makes the library raise whatever it likes
        where = "folder" if Path(path).exists() else "folder or hub model"
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{what} text encoder: cannot load the {where} {path} ({reason}); "
            "pass --text_encoder_path FOLDER, or train with --text_encoder_type builtin"
        ) from None


def _load(loader: Any, path: str, settings: dict[str, Any]) -> Any:
    try:
        return loader.from_pretrained(path, local_files_only=True, **settings)
    except (OSError, ValueError):
        if Path(path).exists():
            raise
    from transformers import AutoConfig

    # without a network it gives up soon; tokenizers do not
    AutoConfig.from_pretrained(path, trust_remote_code=False)
    return loader.from_pretrained(path, **settings)
