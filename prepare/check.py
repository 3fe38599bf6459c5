"""Tell which of the files that a task needs are on this machine, and what brings the others.

    python -m prepare.check --task generate
    python -m prepare.check --task train --dataset kit --reward_path save/tmr_kit
    python -m prepare.check --task train --model mld_star

One row per asset: whether it loads, where it is (or what is wrong), and the command that brings it.
The scripts' own loaders look for the files, without a network, so an asset that is named `ok` here
works there; the first check of a dataset also packs it. The exit code is 0 when nothing is missing
and 1 otherwise.
"""

from utils.start import entry_point

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from data_loaders.humanml import FOLDERS, DatasetOptions, open_dataset, resolve_dataset
from data_loaders.skeleton import SKELETONS
from model.checkpoint_files import ModelPathOptions, load_stats, read_model_args
from model.families import is_latent
from model.latent.checkpoints import read_settings, read_weights
from model.text.encoders import TextEncoderOptions, build_text_encoder
from rewards.co_embedding import CoEmbedder, EvaluatorFiles, EvaluatorPaths
from rewards.tmr import TMRPathOptions, TMRReward
from tmr.model import TMR, find_run
from utils.commands import typed
from utils.errors import UserError
from utils.options import option, parse_options, with_default
from utils.places import here_or_project

TASKS = ("train", "generate", "evaluate")
SPLITS = {"train": ("train", "val"), "generate": (), "evaluate": ("test",)}


@dataclass(frozen=True)
class Published:
    """The default places of a dataset's assets, and what brings them."""

    model_path: str
    model_command: str
    reward_path: str
    reward_command: str
    statistics_command: str
    data_command: str


BY_HAND = "by hand, as https://github.com/EricGuo5513/HumanML3D tells, into dataset/"
PUBLISHED = {
    "humanml": Published(
        "save/humanml_enc_512_50steps/model000750000.pt",
        "bash prepare/download_mdm.sh humanml_enc_512_50steps",
        "models/tmr_humanml3d_guoh3dfeats",
        "bash prepare/download_tmr.sh",
        "bash prepare/download_humanml_texts.sh",
        BY_HAND + FOLDERS["humanml"],
    ),
    "kit": Published(  # TMR's published KIT model reads other features than KIT motions have
        "save/kit_trans_enc_512/model000400000.pt",
        "bash prepare/download_mdm.sh kit_trans_enc_512",
        "save/tmr_kit",
        "python -m train.train_tmr --dataset kit --save_dir save/tmr_kit",
        BY_HAND + FOLDERS["kit"],
        BY_HAND + FOLDERS["kit"],
    ),
}
# Latent models of HumanML3D: where they are, and what brings them.
LATENT = {
    "mld": ("save/mld_humanml3d/mld_humanml3d.ckpt", "bash prepare/download_mld.sh mld_humanml3d"),
    "mld_star": ("save/motionlcm/mld_humanml/mld_humanml_v1.ckpt", "bash prepare/download_mld.sh"),
    "mld_v2": ("save/motionlcm/mld_humanml/mld_humanml.ckpt", "bash prepare/download_mld.sh"),
}
TEXT_ENCODERS = {"mdm": "clip", "mld": "clip_large"} | dict.fromkeys(
    ("mld_star", "mld_v2"), "sentence_t5"
)
TEXT_ENCODER_COMMAND = (
    "going online once; or for CLIP: bash prepare/download_clip.sh and --text_encoder_path clip"
)
EVALUATORS_COMMAND = "bash prepare/download_t2m_evaluators.sh && bash prepare/download_glove.sh"


@dataclass
class Options(DatasetOptions, EvaluatorPaths, TextEncoderOptions, ModelPathOptions, TMRPathOptions):
    task: str = option("generate", "what the files are for", choices=TASKS)
    dataset: str = with_default("humanml", "which dataset", choices=tuple(PUBLISHED))
    model: str = option("mdm", "whose published checkpoint it is", choices=("mdm", *LATENT))
    model_path: str = with_default("", "base checkpoint; none = the published one", required=False)
    reward_path: str = with_default("", "TMR run folder; none = the published one, or save/tmr_kit")

    def validate(self) -> None:
        if self.model in LATENT and self.dataset != "humanml":
            raise UserError(f"--model {self.model} is published for humanml alone; name that")
        self.model_path = self.model_path or str(here_or_project(self.published_model[0]))
        self.reward_path = self.reward_path or PUBLISHED[self.dataset].reward_path

    @property
    def published_model(self) -> tuple[str, str]:
        """Its place, and what brings it."""
        published = PUBLISHED[self.dataset]
        return LATENT.get(self.model, (published.model_path, published.model_command))


@dataclass(frozen=True)
class Asset:
    """`locate` returns where the asset is, or raises UserError with where it was looked for."""

    name: str
    locate: Callable[[], str]
    command: str


@dataclass(frozen=True)
class Finding:
    asset: Asset
    there: bool
    where: str


def assets(options: Options) -> Iterator[Asset]:
    """What the task needs, in the order in which one fetches it."""
    published = PUBLISHED[options.dataset]
    yield Asset("checkpoint", lambda: _checkpoint(options), options.published_model[1])
    yield Asset("statistics", lambda: _statistics(options), published.statistics_command)
    yield Asset("text encoder", lambda: _text_encoder(options), TEXT_ENCODER_COMMAND)
    for split in SPLITS[options.task]:
        yield Asset(f"split {split}", lambda s=split: _split(options, s), published.data_command)
    if options.task == "train":
        yield Asset("reward", lambda: _reward(options), published.reward_command)
    if options.task == "evaluate":
        yield Asset("evaluators", lambda: _evaluators(options), EVALUATORS_COMMAND)


def _checkpoint(options: Options) -> str:
    read_model_args(options.model_path)
    if is_latent(Path(options.model_path)):
        read_weights(options.model_path)
    return options.model_path


def _statistics(options: Options) -> str:
    path = Path(options.model_path)
    args = read_model_args(path) if path.is_file() else {}
    stats = load_stats(path, {"dataset": options.dataset, **args}, options.data_dir)
    return f"{stats.feature_dim} features"


def _text_encoder(options: Options) -> str:
    path = Path(options.model_path)
    args = read_model_args(path) if path.is_file() else {}
    if args.get("unconstrained"):
        return "none needed"
    if options.model in LATENT and path.is_file():
        kind = read_settings(read_weights(path), args).text_encoder_type
    else:
        kind = str(args.get("text_encoder_type", TEXT_ENCODERS[options.model]))
    build_text_encoder(kind, options.text_encoder_path or None)
    return f"{kind} {options.text_encoder_path}".strip()


def _split(options: Options, split: str) -> str:
    rebuild = options.rebuild_cache
    data = open_dataset(options.dataset, split, options.data_dir, rebuild_cache=rebuild)
    return f"{data.folder.path} ({len(data)} clips)"


def _reward(options: Options) -> str:
    folder = find_run(options.reward_path)
    reward = TMRReward(TMR.load(folder))
    reward.check(SKELETONS[options.dataset])
    return str(folder)


def _evaluators(options: Options) -> str:
    try:
        folder = resolve_dataset(options.dataset, options.data_dir).path
    except UserError:  # its own row tells; the evaluators may still be there
        folder = Path("dataset") / FOLDERS[options.dataset]
    files = EvaluatorFiles.find(options.dataset, folder, options.evaluator_dir, options.glove_dir)
    CoEmbedder.load(files, torch.device("cpu"))
    return f"{files.checkpoint}, {files.mean}, {files.glove}"


def check(options: Options) -> list[Finding]:
    findings = []
    for asset in assets(options):
        try:
            findings.append(Finding(asset, True, asset.locate()))
        except UserError as error:
            findings.append(Finding(asset, False, str(error)))
    return findings


def format_findings(findings: list[Finding]) -> str:
    """One row per asset, and below a missing one the command that brings it."""
    lines = [f"{'asset':14} {'there':7} where"]
    for finding in findings:
        lines.append(
            f"{finding.asset.name:14} {'ok' if finding.there else 'MISSING':7} {finding.where}"
        )
        if not finding.there:
            lines.append(f"{'':14} {'->':>7} {finding.asset.command}")
    return typed("\n".join(lines))


@entry_point
def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is first imported
    options = parse_options(Options, description=__doc__)
    findings = check(options)
    print(format_findings(findings))
    missing = sum(not finding.there for finding in findings)
    print(
        f"{missing} of {len(findings)} assets are missing"
        if missing
        else f"everything for --task {options.task} --dataset {options.dataset} is there"
    )
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
