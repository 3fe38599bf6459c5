"""Run the training scripts with tiny networks on a tiny synthetic dataset."""

import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml

from utils.files import load_tensors

NETWORK = "--text_encoder_type builtin --latent_dim 16 --ff_size 16 --layers 1 --num_heads 2"
LATENTS = "--latent_tokens 2 --latent_dim 8"
LOOP = (
    "--device cpu --train_platform_type NoPlatform --lr_schedule constant --log_interval 1 "
    "--num_steps 2 --lr 1e-3"
)
EVALUATOR_SIZES = (
    "--movement_hidden 8 --movement 8 --text_hidden 8 --motion_hidden 8 --embedding 6 "
    "--movement_batch_size 16 --batch_size 8 --device cpu --train_platform_type NoPlatform "
    "--log_interval 1"
)
MOMASK_SIZES = {
    "rvq": "--nb_code 16 --code_dim 8 --width 8 --depth 2 --num_quantizers 3 --window 32",
    "base": "--latent_dim 16 --ff_size 16 --n_layers 2 --n_heads 2",
    "residual": "--latent_dim 16 --ff_size 16 --n_layers 2 --n_heads 2",
    "lengths": "",
}
MOMASK_FOLDERS = {
    "rvq": "rvq",
    "base": "base",
    "residual": "tres",
    "lengths": "length_estimator",
}
PREFERENCE = "--batch_size 4 --num_candidates 2 --val_motions 8 --probe_batches 1"


@dataclass(frozen=True)
class Workspace:
    """A dataset of 60 clips, a base model and a reward; `script` fills in what they need."""

    data: Path
    base: Path
    reward: Path

    def arguments(self, script: str, save_dir: Path) -> list[str]:
        """A valid command line for ``train.{script}``; what follows it takes precedence."""
        data = ["--dataset", "tiny", "--data_dir", str(self.data), "--save_dir", str(save_dir)]
        own = {
            "train_tmr": f"{NETWORK} --batch_size 8".split(),
            "train_mdm": f"{NETWORK} --batch_size 8 --diffusion_steps 4 --mask_frames".split(),
            "train_mld": [
                *f"{NETWORK} --batch_size 8 --hidden_dim 16 --layers 3 --dropout 0.1".split(),
                *f"{LATENTS} --diffusion_steps 50".split(),
            ],
            "train_sopo": [
                *["--model_path", str(self.base), "--reward_path", str(self.reward)],
                *PREFERENCE.split(),
            ],
            "train_reward_backprop": [
                *["--model_path", str(self.base), "--reward_path", str(self.reward)],
                *["--sampling_steps", "4", "--batch_size", "4", "--val_motions", "8"],
            ],
        }[script]
        return [*data, *LOOP.split(), *own]

    def run(self, script: str, save_dir: Path, *changes: str) -> None:
        run_main(f"train.{script}", [*self.arguments(script, save_dir), *changes])


def run_main(module: str, arguments: list[str]) -> None:
    """``python -m module arguments``, in this process."""
    with patch.object(sys, "argv", [module, *arguments]):
        import_module(module).main()


def refused(module: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line in which ``python -m module arguments`` says what is wrong."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run_main(module, arguments)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


class Process:
    """`subprocess.Popen` of a script of this project, run to its end in this process."""

    def __init__(self, words: list[str], stdout, **_) -> None:
        module, *arguments = words[2:]
        text = TextIOWrapper(os.fdopen(os.dup(stdout.fileno()), "wb"))
        with text, redirect_stdout(text), redirect_stderr(text):
            try:
                run_main(module, arguments)
                self.returncode = 0
            except SystemExit as end:
                self.returncode = end.code

    def poll(self) -> int:
        return self.returncode


def sweep_file(space: Workspace, folder: Path, rows: dict, **parts) -> Path:
    """A sweep of the tiny base; `common` in `parts` is merged with what it needs."""
    common = {
        **{"dataset": "tiny", "data_dir": str(space.data), "model_path": str(space.base)},
        **{"reward_path": str(space.reward), "batch_size": 4, "num_candidates": 2},
        **{"val_motions": 8, "probe_batches": 1, "num_steps": 2, "lr": 1e-3, "device": "cpu"},
        "train_platform_type": "NoPlatform",
        **parts.pop("common", {}),
    }
    content = {"save_dir": str(folder / "out"), "seeds": [1], "common": common, "rows": rows}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content | parts, sort_keys=False))
    return path


def read_metrics(save_dir: Path) -> list[dict[str, float]]:
    lines = (save_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def same_weights(a: Path, b: Path) -> bool:
    """Do two checkpoint files hold the same tensors, bit by bit?"""

    def flat(state: dict, prefix: str = "") -> dict[str, torch.Tensor]:
        found = {}
        for key, value in state.items():
            nested = flat(value, f"{key}/") if isinstance(value, dict) else {key: value}
            found |= {prefix + name: tensor for name, tensor in nested.items()}
        return found

    first, second = flat(load_tensors(a)), flat(load_tensors(b))
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
