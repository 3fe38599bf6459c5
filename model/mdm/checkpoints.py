"""MDM checkpoints: upstream's ``modelNNNNNNNNN.pt`` and ``args.json``, read and written.

An exported ``.safetensors`` file (model/single_file.py) is read wherever a ``.pt`` is.

Ours hold in addition ``stats.npz`` (the generator's mean and std), so that sampling needs no
dataset, and a ``provenance`` entry in ``args.json``.
"""

import re
import warnings
from collections import OrderedDict
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.humanml import resolve_dataset
from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton, skeleton_for_dim
from diffusion.gaussian import GaussianDiffusion
from diffusion.schedule import make_schedule
from model.mdm.generator import MDMGenerator
from model.mdm.network import MDM, MDMConfig
from model.single_file import (
    is_single_file,
    read_single_args,
    read_single_state,
    read_single_stats,
)
from model.text.encoders import (
    CachedTextEncoder,
    Condition,
    PooledEncoder,
    TextEncoder,
    build_text_encoder,
)
from model.weights import key_problems
from utils.errors import UserError
from utils.files import load_tensors, read_json, save_tensors, write_json
from utils.provenance import provenance

# Buffers that every checkpoint carries and that are recomputed, as their length may differ.
POSITION_TABLES = ("sequence_pos_encoder.pe", "embed_timestep.sequence_pos_encoder.pe")


class NoText:
    """The text encoder of an unconstrained model: one empty token."""

    width, pooled = 1, True

    def encode(self, captions: list[str]) -> Condition:
        return Condition(torch.zeros(len(captions), 1, 1), torch.ones(len(captions), 1).bool())


def step_of(model_path: Path) -> int:
    """The number in ``modelNNNNNNNNN.pt`` or of its export; raises UserError for another name."""
    match = re.fullmatch(r"model(\d+)\.(pt|safetensors)", model_path.name)
    if match is None:
        raise UserError(f"{model_path}: expected a name like model000475000.pt")
    return int(match.group(1))


def read_model_args(model_path: str | Path) -> dict[str, Any]:
    """``args.json`` beside a checkpoint. Raises UserError when the checkpoint or it is missing."""
    model_path = Path(model_path)
    if not model_path.is_file():
        raise UserError(
            f"--model_path {model_path} does not exist; python -m prepare.check tells what brings "
            "the published ones"
        )
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


def build_generator(
    config: MDMConfig,
    stats: Statistics,
    skeleton: Skeleton,
    device: torch.device | str,
    text_encoder_path: str = "",
    autocast: torch.dtype | None = None,
) -> MDMGenerator:
    """A generator with new weights."""
    encoder = _text_encoder(config, text_encoder_path, device)
    width = None if config.unconstrained else encoder.width
    model = MDM(config, stats.feature_dim, width).to(device)
    schedule = make_schedule(config.noise_schedule, config.diffusion_steps)
    return MDMGenerator(
        model,
        GaussianDiffusion(schedule, config.sigma_small),
        stats.to(device),
        encoder,
        skeleton,
        torch.device(device),
        autocast,
    )


def _text_encoder(config: MDMConfig, path: str, device: torch.device | str) -> TextEncoder:
    """Tokens are usable by the decoder only; other layouts take one vector per caption."""
    if config.unconstrained:
        return NoText()
    if config.text_encoder_type == "bert" and config.arch != "trans_dec":
        raise UserError("--text_encoder_type bert needs --arch trans_dec (it gives many tokens)")
    encoder = build_text_encoder(config.text_encoder_type, path or None, device)
    if not encoder.pooled and config.arch != "trans_dec":
        encoder = PooledEncoder(encoder)
    return CachedTextEncoder(encoder)


def save_checkpoint(
    save_dir: Path,
    step: int,
    generator: MDMGenerator,
    average: nn.Module | None = None,
    args: dict[str, Any] | None = None,
) -> Path:
    """Write ``model{step:09d}.pt``, ``args.json`` and ``stats.npz``; returns the model's path.

    With `average` the file holds ``model`` and ``model_avg``, as upstream's EMA runs do.
    """
    state: Any = _cpu_state(generator.model)
    if average is not None:
        state = {"model": state, "model_avg": _cpu_state(average)}
    known = {f.name: getattr(generator.model.config, f.name) for f in fields(MDMConfig)}
    everything = {**(args or {}), **known, "use_ema": average is not None}
    write_json(save_dir / "args.json", {**everything, "provenance": provenance()})
    generator.stats.save_together(save_dir / "stats.npz")
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


def load_generator(
    model_path: str | Path,
    device: torch.device | str = "cpu",
    data_dir: str = "",
    text_encoder_path: str = "",
    autocast: torch.dtype | None = None,
    compiled: bool = False,
) -> MDMGenerator:
    """A published or own checkpoint as a generator, in eval mode; `compiled` as it samples.

    The statistics come from ``stats.npz`` beside it, else from the dataset that ``args.json``
    names (its Mean.npy and Std.npy). Raises UserError for whatever is missing or does not fit.
    """
    model_path = Path(model_path)
    args = read_model_args(model_path)
    config = config_from_args(args)
    stats = load_stats(model_path, args, data_dir)
    skeleton = skeleton_for_dim(stats.feature_dim)
    if skeleton is None:
        raise UserError(f"{model_path}: no skeleton has {stats.feature_dim} features")
    generator = build_generator(config, stats, skeleton, device, text_encoder_path, autocast)
    load_weights(generator.model, model_path, use_ema=bool(args.get("use_ema", False)))
    generator.model.eval()
    return replace(generator, compiled=compiled)


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
