"""Write the models that come with the project, and a card that says how they were made.

    python -m train.ship_weights --base save/syn_base/model000005000.pt --reward save/syn_reward \\
        --judge save/syn_judge --evaluators save/syn_evaluators --data_dir dataset/synthetic_large
    python -m train.ship_weights ... --sweep save/demo_seeds --overwrite

Weights are stored in half precision as ``.safetensors``, which cannot hold code. ``card.json``
holds of every model the command, commit and first losses of its training, its size and its SHA-256,
and of the data what makes it and its digest. With --sweep it also holds the figures of every seed
of that sweep, whose spread the demo compares its own run with.
"""

from utils.start import entry_point

import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from shutil import copytree
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from eval.seed_spread import seeds_of_sweep
from model.checkpoint_files import load_stats, read_model_args, step_of
from model.mdm.checkpoints import POSITION_TABLES, read_weights
from model.shipped import CARD_FILE, EVALUATORS_FOLDER, JUDGE_FILE, REWARD_FILE, SHIPPED
from model.single_file import SUFFIX, read_single_state, write_single_file
from rewards.co_embedding import STATS_FOLDERS, Evaluators
from tmr.model import TMR
from train.stages import as_words
from utils.errors import UserError
from utils.files import atomic_write, prepare_output_dir, read_json, write_json
from utils.options import option, parse_options

DTYPE = torch.float16
FIRST_STEPS = (1, 10, 20)  # whose losses tell that a training is the same
# Where a command ran and wrote changes nothing about what it made.
ELSEWHERE = ("save_dir", "overwrite", "resume", "device", "cuda", "train_platform_type")
MATCHING_FOLDER = Path("text_mot_match", "model")


@dataclass
class Options:
    base: str = option("", "checkpoint of the base MDM", required=True)
    reward: str = option("", "run folder of the TMR that is the reward", required=True)
    judge: str = option("", "run folder of the TMR that judges", required=True)
    evaluators: str = option("", "folder of the evaluators", required=True)
    data_dir: str = option("", "folder of the embedded dataset they learned from", required=True)
    sweep: str = option(
        "", "folder of a sweep with several seeds of the demo's tuning; none = skip"
    )
    out: str = option(str(SHIPPED), "folder to write")
    overwrite: bool = option(False, "write into an existing folder")


@dataclass(frozen=True)
class ShippedModel:
    """command: what trained it; losses: by step, as its training logged them."""

    file: str
    command: str
    commit: str
    torch: str
    parameters: int
    bytes: int
    sha256: str
    losses: dict[str, float]


def describe(path: Path, folder: Path, script: str, run: Path, log: Path) -> ShippedModel:
    """The card of one file of `folder`, trained by `script` in `run` with its metrics in `log`."""
    args = read_json(run / "args.json")
    made_with = args["provenance"]
    state = read_single_state(path)
    return ShippedModel(
        file=str(path.relative_to(folder)),
        command=training_command(script, args),
        commit=made_with["commit"],
        torch=made_with["torch"],
        parameters=sum(value.numel() for value in state.values()),
        bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        losses=first_losses(log / "metrics.jsonl"),
    )


def training_command(script: str, args: dict[str, Any]) -> str:
    """A training with the options that are not the defaults of its script."""
    options = import_module(script).Options
    defaults = asdict(options())
    words = ["python", "-m", script]
    for name in (field.name for field in fields(options) if field.name not in ELSEWHERE):
        if name in args and args[name] != defaults[name]:
            words += [f"--{name}", *as_words(args[name])]
    return shlex.join(words)


def first_losses(metrics: Path) -> dict[str, float]:
    """Step -> loss. Raises UserError when the log lacks one of `FIRST_STEPS`."""
    found = {line["step"]: line["loss"] for line in _read_lines(metrics) if "loss" in line}
    missing = [step for step in FIRST_STEPS if step not in found]
    if missing:
        raise UserError(f"{metrics} has no loss of step {missing[0]}; keep --log_interval 10")
    return {str(step): found[step] for step in FIRST_STEPS}


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is no log of a training ({error})") from None


def data_digest(folder: Path) -> str:
    """SHA-256 of names and contents of everything that a training reads of a dataset."""
    digest = hashlib.sha256()
    files = [
        *folder.glob("new_joint_vecs/*.npy"),
        *folder.glob("texts/*.txt"),
        *folder.glob("*.txt"),
        *(folder / name for name in ("Mean.npy", "Std.npy", "annotations.json")),
    ]
    for path in sorted(files):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Raises UserError for a number that half precision cannot hold."""
    found = {key: value.to(DTYPE).contiguous() for key, value in state.items()}
    for key, value in found.items():
        if not value.isfinite().all():
            raise UserError(f"{key} exceeds the range of half precision")
    return found


def ship_base(source: Path, folder: Path) -> Path:
    """The averaged weights, without the tables of positions, which every loader computes."""
    args = read_model_args(source)
    state = half(read_weights(source, use_ema=bool(args["use_ema"])))
    kept = {key: value for key, value in state.items() if key not in POSITION_TABLES}
    path = folder / f"model{step_of(source):09d}{SUFFIX}"
    write_single_file(path, kept, args, load_stats(source, args))
    return path


def ship_tmr(run: Path, path: Path) -> Path:
    TMR.load(run).save_single_file(path, DTYPE, read_json(run / "args.json"))
    return path


def ship_evaluators(run: Path, folder: Path) -> Path:
    """In upstream's layout: networks, statistics, word vectors."""
    evaluators = Evaluators.load(run / MATCHING_FOLDER / "finest.tar")
    for part in (STATS_FOLDERS[1], "glove"):
        copytree(run / part, folder / part, dirs_exist_ok=True)
    path = folder / MATCHING_FOLDER / f"finest{SUFFIX}"
    with atomic_write(path) as temporary:
        save_file(half(evaluators.state_dict()), temporary)
    return path


def ship(options: Options) -> Path:
    """Write everything; returns the path of the card."""
    folder = prepare_output_dir(options.out, options.overwrite, option="--out")
    base, data = Path(options.base), Path(options.data_dir)
    reward, judge, evaluators = map(Path, (options.reward, options.judge, options.evaluators))
    files = {
        "base": ship_base(base, folder),
        "reward": ship_tmr(reward, folder / REWARD_FILE),
        "judge": ship_tmr(judge, folder / JUDGE_FILE),
        "evaluators": ship_evaluators(evaluators, folder / EVALUATORS_FOLDER),
    }
    trained = {
        "base": ("train.train_mdm", base.parent, base.parent),
        "reward": ("train.train_tmr", reward, reward),
        "judge": ("train.train_tmr", judge, judge),
        "evaluators": ("train.train_evaluators", evaluators, evaluators / "text_mot_match"),
    }
    models = {name: describe(files[name], folder, *trained[name]) for name in files}
    info = read_json(data / "dataset.json")
    card = {
        "data": {"made_with": info, "sha256": data_digest(data)},
        "models": {name: asdict(model) for name, model in models.items()},
        "seeds": seeds_of_sweep(Path(options.sweep)) if options.sweep else {},
    }
    write_json(folder / CARD_FILE, card)
    return folder / CARD_FILE


@entry_point
def main() -> None:
    print(ship(parse_options(Options, description=__doc__)))


if __name__ == "__main__":
    main()
