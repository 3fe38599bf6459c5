"""MDM checkpoints: upstream's ``modelNNNNNNNNN.pt`` and ``args.json``, read and written.

An exported ``.safetensors`` file (model/single_file.py) is read wherever a ``.pt`` is.

Ours hold in addition ``stats.npz`` (the generator's mean and std), so that sampling needs no
dataset, and a ``provenance`` entry in ``args.json``.
"""

import re
import warnings
from collections import OrderedDict
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from data_loaders.humanml import resolve_dataset
from data_loaders.normalizer import Statistics
from model.mdm.network import MDM, MDMConfig
from model.single_file import (
    is_single_file,
    read_single_args,
    read_single_state,
    read_single_stats,
)
from model.weights import key_problems
from utils.errors import UserError
from utils.files import load_tensors, read_json, save_tensors, write_json
from utils.provenance import provenance

# Buffers that every checkpoint carries and that are recomputed, as their length may differ.
POSITION_TABLES = ("sequence_pos_encoder.pe", "embed_timestep.sequence_pos_encoder.pe")


CHECKPOINT_NAME = r"model(\d+)\.(pt|safetensors)"


def step_of(model_path: Path) -> int:
    """The number in ``modelNNNNNNNNN.pt`` or of its export; raises UserError for another name."""
    match = re.fullmatch(CHECKPOINT_NAME, model_path.name)
    if match is None:
        raise UserError(f"{model_path}: expected a name like model000475000.pt")
    return int(match.group(1))


def find_checkpoint(model_path: str | Path) -> Path:
    """A checkpoint file; of a run's folder the best by ``best.json``, else the newest.

    Raises UserError when there is none.
    """
    path = Path(model_path)
    if path.is_dir():
        return _checkpoint_in(path)
    if not path.is_file():
        raise UserError(
            f"--model_path {path} does not exist; python -m prepare.check tells what brings "
            "the published ones"
        )
    return path


def _checkpoint_in(folder: Path) -> Path:
    best = folder / "best.json"
    if best.is_file():
        stated = read_json(best)
        name = Path(str(stated.get("path", "") if isinstance(stated, dict) else "")).name
        if name and (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if re.fullmatch(CHECKPOINT_NAME, p.name))
    if not found:
        raise UserError(
            f"--model_path {folder} holds no checkpoint (model000475000.pt or the like)"
        )
    return max(found, key=step_of)


def read_model_args(model_path: str | Path) -> dict[str, Any]:
    """``args.json`` beside a checkpoint. Raises UserError when the checkpoint or it is missing."""
    model_path = find_checkpoint(model_path)
    path = model_path.parent / "args.json"
    if is_single_file(model_path):
        args = read_single_args(model_path)
    elif path.is_file():
        args = read_json(path)
    else:
        raise UserError(f"{path} does not exist; a checkpoint needs the args.json of its training")
    if not isinstance(args, dict):
        raise UserError(f"{path} must hold a dictionary of arguments")
    if args.get("cond_mode") == "no_cond":  # the name that the oldest files use
        args["unconstrained"] = True
    return args


def config_from_args(args: dict[str, Any]) -> MDMConfig:
    """The options of the network; those that an older file lacks keep their defaults."""
    known = {field.name: args[field.name] for field in fields(MDMConfig) if field.name in args}
    missing = sorted({f.name for f in fields(MDMConfig)} - set(known) - OURS)
    if missing:
        warnings.warn(f"args.json lacks {', '.join(missing)}; using the defaults", stacklevel=2)
    return MDMConfig(**known)


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
        return state["model_avg"]
    if "model" in state and isinstance(state["model"], dict):
        return state["model"]
    return state


def load_weights(model: nn.Module, model_path: str | Path, use_ema: bool = True) -> None:
    """Load a checkpoint strictly into `model`; the average is taken where there is one.

    Raises UserError that names keys which are missing, unknown or of another shape.
    """
    state = read_weights(model_path, use_ema)
    given = {k: v for k, v in state.items() if k not in POSITION_TABLES}
    wanted = {k: v for k, v in model.state_dict().items() if k not in POSITION_TABLES}
    found = key_problems(wanted, given)
    if found:
        raise UserError(
            f"{model_path} is a checkpoint of another architecture than its args.json says "
            f"({found})"
        )
    model.load_state_dict(given, strict=False)


def load_stats(model_path: Path, args: dict[str, Any], data_dir: str = "") -> Statistics:
    """The generator's statistics: of the checkpoint, else of the dataset that `args` names.

    Raises UserError when they are missing or damaged.
    """
    if is_single_file(model_path):
        return read_single_stats(model_path)
    path = model_path.parent / "stats.npz"
    if not path.is_file():
        dataset = resolve_dataset(str(args.get("dataset", "humanml")), data_dir)
        return Statistics.load(dataset.path / "Mean.npy", dataset.path / "Std.npy", "dataset_stats")
    return Statistics.load_together(path, "dataset_stats")
