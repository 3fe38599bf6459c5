"""The commands that tests/kills.py kills: all that work for long, with tiny networks."""

from dataclasses import dataclass, replace
from pathlib import Path

from prepare.procedural import dataset as synthetic
from tests.train.scripts import (
    EVALUATOR_SIZES,
    LOOP,
    MOMASK_FOLDERS,
    MOMASK_SIZES,
    Workspace,
    run_main,
)
from train.run_state import states_in

WORLD = 2
TRAININGS = ("train_mdm", "train_tmr", "train_sopo", "train_sopo2", "evaluators")
LATENT = ("mld_vae", "mld_diffusion", "mld_sopo")
NAMES = ("loop", *TRAININGS, *LATENT, "momask_rvq", "momask_base", "pairs", "samples")
OFTEN = "--num_steps 4 --val_interval 2 --save_interval 3 --autosave_minutes 1e-9"
BARE = "--lr 0.05 --device cpu --train_platform_type NoPlatform --log_interval 2"
PAIRS = "--num_captions 24 --batch_size 4 --device cpu"
SAMPLES = "--num_samples 4 --num_repetitions 2 --motion_length 2 --video none --device cpu"
QUANTILE = ("--tau_quantile", "0.5")


@dataclass(frozen=True)
class Command:
    """How a command is begun and, after a kill, taken up again; `processes` of them together.

    output: the option of its folder. samples: it is begun anew, as there is nothing to resume.
    """

    name: str
    module: str
    arguments: list[str]
    processes: int = 1
    output: str = "save_dir"
    samples: bool = False

    def words(self, folder: Path) -> list[str]:
        """As `train.stages.go_on` has it."""
        own = [*self.arguments, f"--{self.output}", str(folder)]
        resumable = any(states_in(path) for path in (folder, *folder.rglob("*/")))
        if resumable or (folder.is_dir() and self.output == "out"):
            return [*own, "--resume"]
        return [*own, "--overwrite"] if folder.is_dir() else own


def workspace(root: Path) -> Workspace:
    """Where dataset, base model and reward lie."""
    return Workspace(root / "data", root / "base" / "model000000002.pt", root / "reward")


def latent_workspace(root: Path) -> Workspace:
    return replace(workspace(root), base=root / "mld" / "model000000002.pt")


def make_workspace(root: Path) -> None:
    """Make the dataset, and all models that a command begins with."""
    space, latent = workspace(root), latent_workspace(root)
    synthetic.build(synthetic.Options(out=str(space.data), num_clips=60, captions_per_clip=2))
    names = (space.data / "all.txt").read_text(encoding="utf-8").split()
    (space.data / "val.txt").write_text("\n".join(names[:16]), encoding="utf-8")
    space.run("train_mdm", space.base.parent, "--use_ema")
    space.run("train_tmr", space.reward)
    space.run("train_mld", root / "vae", "--stage", "vae")
    space.run("train_mld", latent.base.parent, *_of_vae(root))
    save_dir = ["--save_dir", str(root / MOMASK_FOLDERS["rvq"])]
    run_main("train.train_momask", [*_momask(space, "rvq"), *save_dir])


def _of_vae(root: Path) -> list[str]:
    return ["--stage", "diffusion", "--vae_path", str(root / "vae")]


def _data(space: Workspace) -> list[str]:
    return ["--dataset", "tiny", "--data_dir", str(space.data)]


def _momask(space: Workspace, stage: str) -> list[str]:
    words = [] if stage == "rvq" else ["--text_encoder_type", "builtin"]
    sizes = [*MOMASK_SIZES[stage].split(), "--batch_size", "8"]
    return [*_data(space), *LOOP.split(), *sizes, "--stage", stage, *words]


def commands(root: Path) -> list[Command]:
    """The bare loop, trainings that save often, one of two processes, generated pairs, samples."""
    space, latent = workspace(root), latent_workspace(root)

    def training(
        name: str, script: str, *more: str, space: Workspace = space, processes: int = 1
    ) -> Command:
        words = space.arguments(script, Path("unused"))
        at = words.index("--save_dir")
        arguments = [*words[:at], *words[at + 2 :], *OFTEN.split(), *more]
        return Command(name, f"train.{script}", arguments, processes)

    def momask(stage: str) -> Command:
        return Command(
            f"momask_{stage}", "train.train_momask", [*_momask(space, stage), *OFTEN.split()]
        )

    evaluators = [*_data(space), *EVALUATOR_SIZES.split(), *OFTEN.split(), "--movement_steps", "4"]
    sources = ["--model_path", str(space.base), "--reward_path", str(space.reward)]
    samples = [*_data(space), "--model_path", str(space.base), "--split", "val", *SAMPLES.split()]
    return [
        Command(
            "loop", "tests.train.regression", [*BARE.split(), *OFTEN.split(), "--num_steps", "12"]
        ),
        training("train_mdm", "train_mdm", "--use_ema"),
        training("train_tmr", "train_tmr"),
        training("train_sopo", "train_sopo", *QUANTILE),
        training("train_sopo2", "train_sopo", *QUANTILE, "--batch_size", "2", processes=WORLD),
        Command("evaluators", "train.train_evaluators", evaluators),
        training("mld_vae", "train_mld", "--stage", "vae"),
        training("mld_diffusion", "train_mld", *_of_vae(root)),
        training("mld_sopo", "train_sopo", *QUANTILE, space=latent),
        momask("rvq"),
        momask("base"),
        Command(
            "pairs",
            "prepare.preference_pairs",
            [*_data(space), *sources, *PAIRS.split()],
            output="out",
        ),
        Command("samples", "sample.generate", samples, output="output_dir", samples=True),
    ]
