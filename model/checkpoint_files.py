"""The files of a checkpoint that all families of motion generators share: names and statistics.

A run's folder holds ``modelNNNNNNNNN.pt`` or an exported ``.safetensors`` file, ``args.json`` and
``stats.npz``, the generator's mean and std. The folders of MoMask's networks are upstream's, see
model/momask/checkpoints.py.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_loaders.humanml import resolve_dataset
from data_loaders.normalizer import Statistics
from model.momask.options_file import BASE_FILE, published_args, published_folder
from model.single_file import is_single_file, read_single_args, read_single_stats
from utils.errors import UserError
from utils.files import read_object
from utils.options import option

CHECKPOINT_NAME = r"model(\d+)\.(pt|safetensors)"
LIGHTNING = ".ckpt"  # of published latent diffusion models
TAR = ".tar"  # of MoMask, ours as well


@dataclass
class ModelPathOptions:
    """For every script that reads one checkpoint."""

    model_path: str = option(
        "", "checkpoint, e.g. save/NAME/model000475000.pt", required=True, free="resume"
    )


def step_of(model_path: Path) -> int:
    """The number in ``modelNNNNNNNNN.pt`` or of its export; raises UserError for another name."""
    match = re.fullmatch(CHECKPOINT_NAME, model_path.name)
    if match is None:
        raise UserError(f"{model_path}: expected a name like model000475000.pt")
    return int(match.group(1))


def label_of(model_path: Path) -> str:
    """A checkpoint in the names of files: its step, or the name of a published one."""
    named = model_path.suffix in (LIGHTNING, TAR) or published_folder(model_path)
    return model_path.stem if named else f"{step_of(model_path):09d}"


def run_folder(model_path: Path) -> Path:
    """The folder that names the run of a checkpoint or is that run's, and holds what it left."""
    inside = model_path if model_path.is_dir() else model_path.parent
    return published_folder(model_path) or inside


def find_checkpoint(model_path: str | Path) -> Path:
    """A checkpoint file; of a run's folder the best by ``best.json``, else the newest; of a folder
    of MoMask's base transformer the last.

    Raises UserError when there is none.
    """
    path = Path(model_path)
    if published_folder(path) == path:
        path = path / "model" / BASE_FILE
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
        name = str(read_object(best).get("path", ""))
        if re.fullmatch(CHECKPOINT_NAME, name) and (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if re.fullmatch(CHECKPOINT_NAME, p.name))
    if not found:
        raise UserError(
            f"--model_path {folder} holds no checkpoint (model000475000.pt or the like)"
        )
    return max(found, key=step_of)


def read_model_args(model_path: str | Path) -> dict[str, Any]:
    """``args.json`` beside a checkpoint, which published latent diffusion models do not have.

    Raises UserError when the checkpoint or another one's arguments are missing.
    """
    model_path = find_checkpoint(model_path)
    if (folder := published_folder(model_path)) is not None:
        return published_args(folder)
    path = model_path.parent / "args.json"
    if is_single_file(model_path):
        args = read_single_args(model_path)
    elif path.is_file():
        args = read_object(path)
    elif model_path.suffix == LIGHTNING:
        return {}
    else:
        raise UserError(f"{path} does not exist; a checkpoint needs the args.json of its training")
    if not isinstance(args, dict):
        raise UserError(f"{path} must hold a dictionary of arguments")
    if args.get("cond_mode") == "no_cond":  # the name that the oldest files use
        args["unconstrained"] = True
    return args


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
