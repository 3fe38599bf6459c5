"""Everything that reads a stranger's file: a whole example of it, and its reader."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from data_loaders.annotations import Annotations, CaptionNote, ClipNote
from data_loaders.asf_amc import read_amc
from data_loaders.facts import Fact
from data_loaders.humanml import make_loader, open_dataset
from data_loaders.skeleton import HUMANML
from eval.progress import Progress
from eval.protocol import Figures
from model.export import Options as ExportOptions
from model.export import export
from model.families import load_generator
from model.latent.checkpoints import load_denoiser, load_vae, read_settings, read_weights
from model.text.openai_clip import BPE_FILE, CLIP_FILE, read_state_dict, write_tokenizer_files
from prepare.bvh.caption_table import read_caption_table
from prepare.bvh.convert import ClipOptions, Job, convert_file
from prepare.bvh.joint_maps import load_joint_map
from rewards.co_embedding import CoEmbedder, EvaluatorFiles
from tests.data_loaders.asf_files import Bone, amc_text, asf_text
from tests.data_loaders.datasets import write_dataset
from tests.model.latent.tiny import tiny_denoiser, tiny_vae, write_upstream
from tests.model.momask.tiny import write_folders
from tests.model.text.openai_files import openai_state, tiny_reference, write_archive, write_merges
from tests.prepare.rigs import bvh_text
from tests.rewards.evaluator_files import TINY, write_evaluators
from tests.rewards.glove import write_glove
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.tmr.tiny import tiny_tmr
from tests.train.stored_pairs import write_pairs
from tmr.model import TMR
from train import sweep_plan, train_mdm
from train.preference.fixed_pairs import PairStore
from utils.files import write_json
from utils.options import parse_options

BONES = [
    Bone("thigh", "root", (0.0, -1.0, 0.0), 7.5, "rx ry rz", (10.0, -20.0, 30.0)),
    Bone("shin", "thigh", (0.0, -0.6, 0.8), 7.0, "rx"),
]
FRAME = {"root": [0.0] * 6, "thigh": [1.0, 2.0, 3.0], "shin": [4.0]}


@dataclass(frozen=True)
class Target:
    """`write` makes a folder of whole files; `read` takes it; `files` are those to change."""

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    files: tuple[str, ...]


def write_takes(folder: Path) -> None:
    folder.mkdir()
    (folder / "take.bvh").write_text(bvh_text(frames=80))
    (folder / "captions.csv").write_text(
        "file,caption,facts,meaning,labels\n"
        'take,walks left,"[[""turn_side"", ""left""]]",m,"{""style"": ""old""}"\n'
    )
    lines = [f"{joint}: Hips" for joint in HUMANML.joint_names[1:]]
    (folder / "map.yaml").write_text("\n".join(["pelvis: {Hips: 0.5, Spine: 0.5}", *lines]))


def convert_take(folder: Path) -> None:
    """What is written from a file that is accepted is finite."""
    (folder / "out" / "new_joint_vecs").mkdir(parents=True, exist_ok=True)
    (folder / "out" / "new_joints").mkdir(exist_ok=True)
    job = Job(folder / "take.bvh", "000000", "take.bvh")
    outcome = convert_file(job, folder / "out", None, ClipOptions(mirror=False))
    for written in outcome.written:
        motion = np.load(folder / "out" / "new_joint_vecs" / f"{written.name}.npy")
        assert np.isfinite(motion).all()


def write_amc(folder: Path) -> None:
    folder.mkdir()
    (folder / "01.asf").write_text(asf_text(BONES))
    (folder / "01_01.amc").write_text(amc_text([FRAME] * 3))


def read_take(folder: Path) -> None:
    assert np.isfinite(read_amc(folder / "01_01.amc", 120).global_positions()).all()


def write_clips(folder: Path) -> None:
    write_dataset(folder, {"000000": 40, "M000000": 50})
    write_json(folder / "dataset.json", {"skeleton": "humanml", "fps": 20})
    note = CaptionNote((Fact("turn_side", "left"), Fact("jump_count", 2)), "m")
    Annotations({"000000 walks": note}, {"000000": ClipNote("walk", {"a": "b"})}).save(folder)


def read_clips(folder: Path) -> None:
    """Whatever is served is finite, also from a cache that has changed."""
    data = open_dataset("tiny", "train", str(folder))
    for batch in make_loader(data, 2, shuffle=True):
        assert torch.isfinite(batch.normalized(data.stats)).all()
        data.meanings(batch.captions)
        data.families(batch.names)


def write_packed(folder: Path) -> None:
    write_clips(folder)
    open_dataset("tiny", "train", str(folder))


def write_options(folder: Path) -> None:
    folder.mkdir()
    options = {"save_dir": "x", "lr": 1e-3, "layers": 2, "use_ema": True, "num_steps": 30}
    (folder / "run.yaml").write_text(yaml.safe_dump(options))
    sweep = {
        "save_dir": str(folder / "out"),
        "seeds": [1, 2],
        "common": {"config": str(folder / "common.yaml"), "beta": 3, "pairs_path": "p"},
        "rows": {"sft": {"method": "sft"}, "sopo": {"tau_quantile": 0.1, "tau": None}},
        "evaluation": {"eval_tmr": {"judge_path": "j", "split": "test"}},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (folder / "common.yaml").write_text("lr: 0.001\nnum_candidates: 2\n")


def read_sweep(folder: Path) -> None:
    sweep_plan.Sweep(parse_options(sweep_plan.Options, ["--config", str(folder / "sweep.yaml")]))


def write_model(folder: Path) -> None:
    path = write_tiny_checkpoint(folder)
    write_json(folder / "best.json", {"path": path.name, "step": 7, "score": 0.5})


def write_exported(folder: Path) -> None:
    path = write_tiny_checkpoint(folder)
    export(ExportOptions(model_path=str(path)))
    path.unlink()


def write_latent(folder: Path) -> None:
    folder.mkdir()
    write_upstream(folder / "mld.ckpt", tiny_vae(), tiny_denoiser())


def read_latent(folder: Path) -> None:
    weights = read_weights(folder / "mld.ckpt")
    settings = read_settings(weights, {})
    load_vae(weights, settings)
    load_denoiser(weights, settings)


def read_evaluators(folder: Path) -> object:
    files = EvaluatorFiles.find("tiny", folder, str(folder / "t2m"), str(folder / "glove"))
    return CoEmbedder.load(files, torch.device("cpu"))


def write_evaluation(folder: Path) -> None:
    write_evaluators(folder / "t2m")
    write_glove(folder / "glove", width=TINY.word)


def write_clip(folder: Path) -> None:
    write_archive(folder / CLIP_FILE, openai_state(tiny_reference()))
    write_merges(folder)


class Draws:
    """The random state of an evaluation, which is a stranger's file as well."""

    def state(self) -> dict[str, Any]:
        return {"a": 1}

    def load_state(self, state: dict[str, Any]) -> None:
        dict(state)


def progress(folder: Path) -> Progress:
    return Progress(folder / "eval.log", {"seed": 1})


def write_progress(folder: Path) -> None:
    folder.mkdir()
    (folder / "eval.log").write_text("so far")
    figures = Figures(1.5, np.array([0.1, 0.2, 0.3]), 0.3, None, broken=("a",))
    progress(folder).save(Draws(), [{"vald": figures}])


TARGETS = {
    "bvh": Target(write_takes, convert_take, ("take.bvh",)),
    "captions": Target(
        write_takes, lambda f: read_caption_table(f / "captions.csv"), ("captions.csv",)
    ),
    "joint_map": Target(write_takes, lambda f: load_joint_map(f / "map.yaml"), ("map.yaml",)),
    "asf_amc": Target(write_amc, read_take, ("01.asf", "01_01.amc")),
    "dataset": Target(
        write_clips,
        read_clips,
        (
            *("texts/000000.txt", "train.txt", "dataset.json", "annotations.json"),
            *("new_joint_vecs/000000.npy", "Mean.npy", "Std.npy"),
        ),
    ),
    "packed": Target(write_packed, read_clips, ("packed.safetensors",)),
    "options": Target(
        write_options,
        lambda f: parse_options(train_mdm.Options, ["--config", str(f / "run.yaml")]),
        ("run.yaml",),
    ),
    "sweep": Target(write_options, read_sweep, ("sweep.yaml", "common.yaml")),
    "mdm": Target(
        write_model, load_generator, ("args.json", "best.json", "stats.npz", "model000000007.pt")
    ),
    "exported": Target(write_exported, load_generator, ("model000000007.safetensors",)),
    "latent": Target(write_latent, read_latent, ("mld.ckpt",)),
    "momask": Target(
        write_folders,
        lambda f: load_generator(f / "base"),
        ("rvq/opt.txt", "base/opt.txt", "tres_small/opt.txt", "rvq/meta/std.npy"),
    ),
    "tmr": Target(
        lambda f: tiny_tmr().save(f),
        lambda f: TMR.load(f),
        ("config.json", "stats/std.pt", "last_weights/text_encoder.pt"),
    ),
    "evaluators": Target(
        write_evaluation,
        read_evaluators,
        (
            *("t2m/text_mot_match/model/finest.tar", "t2m/Comp_v6_KLD005/meta/std.npy"),
            *("glove/our_vab_words.pkl", "glove/our_vab_idx.pkl", "glove/our_vab_data.npy"),
        ),
    ),
    "clip": Target(write_clip, lambda f: read_state_dict(f / CLIP_FILE), (CLIP_FILE,)),
    "merges": Target(write_clip, lambda f: write_tokenizer_files(f / BPE_FILE, f), (BPE_FILE,)),
    "pairs": Target(
        write_pairs, lambda f: PairStore(f).load(0), ("index.json", "pairs_000000.safetensors")
    ),
    "progress": Target(
        write_progress, lambda f: progress(f).load(Draws()), ("eval.progress.json",)
    ),
}
