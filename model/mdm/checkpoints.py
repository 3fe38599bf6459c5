"""MDM checkpoints: upstream's ``modelNNNNNNNNN.pt`` and ``args.json``, read and written.

An exported ``.safetensors`` file (model/single_file.py) is read wherever a ``.pt`` is.

Ours hold in addition ``stats.npz`` (the generator's mean and std), so that sampling needs no
dataset, and a ``provenance`` entry in ``args.json``.
"""

import warnings
from collections import OrderedDict
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from model.mdm.network import MDM, MDMConfig
from model.single_file import (
    is_single_file,
    read_single_state,
)
from model.weights import key_problems
from utils.errors import UserError
from utils.files import load_tensors, save_tensors, write_json
from utils.options import from_record
from utils.provenance import provenance

# Buffers that every checkpoint carries and that are recomputed, as their length may differ.
POSITION_TABLES = ("sequence_pos_encoder.pe", "embed_timestep.sequence_pos_encoder.pe")


def config_from_args(args: dict[str, Any]) -> MDMConfig:
    """The options of the network; those that an older file lacks keep their defaults.

    Raises UserError for values of another type or out of bounds.
    """
    missing = sorted({f.name for f in fields(MDMConfig)} - set(args) - OURS)
    if missing:
        warnings.warn(f"args.json lacks {', '.join(missing)}; using the defaults", stacklevel=2)
    return from_record(MDMConfig, args, "args.json")


# Options that upstream fixes in its code, so that its files never name them.
OURS = {"ff_size", "num_heads", "dropout", "legacy_emb_token"}


def save_checkpoint(
    save_dir: Path,
    step: int,
    model: MDM,
    stats: Statistics,
    average: nn.Module | None = None,
    args: dict[str, Any] | None = None,
) -> Path:
    """Write ``model{step:09d}.pt``, ``args.json`` and ``stats.npz``; returns the model's path.

    With `average` the file holds ``model`` and ``model_avg``, as upstream's EMA runs do.
    """
    state: Any = _cpu_state(model)
    if average is not None:
        state = {"model": state, "model_avg": _cpu_state(average)}
    known = {f.name: getattr(model.config, f.name) for f in fields(MDMConfig)}
    everything = {**(args or {}), **known, "use_ema": average is not None}
    write_json(save_dir / "args.json", {**everything, "provenance": provenance()})
    stats.save_together(save_dir / "stats.npz")
    path = save_dir / f"model{step:09d}.pt"
    save_tensors(path, state)
    return path


def _cpu_state(model: nn.Module) -> dict[str, Tensor]:
    return OrderedDict((k, v.detach().cpu()) for k, v in model.state_dict().items())


def read_weights(model_path: str | Path, use_ema: bool = True) -> dict[str, Tensor]:
    """The state dict of a checkpoint; the average is taken where there is one.

    Raises UserError when the file is missing, unsafe or holds something else.
    """
    if is_single_file(model_path):
        return read_single_state(Path(model_path))
    state = load_tensors(model_path)
    if not isinstance(state, dict):
        raise UserError(f"{model_path} is not a checkpoint of MDM (no dictionary of tensors)")
    if use_ema and "model_avg" in state:
        state = state["model_avg"]
    elif "model" in state and isinstance(state["model"], dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise UserError(f"{model_path} is not a checkpoint of MDM (no dictionary of tensors)")
    return state


def load_weights(model: nn.Module, model_path: str | Path, use_ema: bool = True) -> None:
    """Load a checkpoint strictly into `model`; the average is taken where there is one.

    Raises UserError that names keys which are missing, unknown or of another shape.
    """
    state = read_weights(model_path, use_ema)
    given = {k: v for k, v in state.items() if k not in POSITION_TABLES}
    wanted = {k: v for k, v in model.state_dict().items() if k not in POSITION_TABLES}
    if found := key_problems(wanted, given):
        raise UserError(
            f"{model_path} is a checkpoint of another architecture than its args.json says "
            f"({found})"
        )
    model.load_state_dict(given, strict=False)
