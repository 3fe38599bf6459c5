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

from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

from safetensors.torch import save_file

from eval.seed_spread import seeds_of_sweep
from model.checkpoint_files import load_stats, read_model_args, step_of
from model.mdm.checkpoints import POSITION_TABLES, read_weights
from model.shipped import EVALUATORS_FOLDER, JUDGE_FILE, REWARD_FILE, SHIPPED
from model.single_file import SUFFIX, read_single_state, write_single_file
from rewards.co_embedding import STATS_FOLDERS, Evaluators
from tmr.model import TMR
from train.model_card import DTYPE, ShipOptions, data_digest, describe, half, write_card
from utils.files import atomic_write, read_json
from utils.options import option, parse_options, with_default

MATCHING_FOLDER = Path("text_mot_match", "model")
# What a training reads of a dataset
READ = (
    *("new_joint_vecs/*.npy", "texts/*.txt", "*.txt"),
    *("Mean.npy", "Std.npy", "annotations.json"),
)


@dataclass
class Options(ShipOptions):
    evaluators: str = option("", "folder of the evaluators", required=True)
    sweep: str = option(
        "", "folder of a sweep with several seeds of the demo's tuning; none = skip"
    )
    out: str = with_default(str(SHIPPED))


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


def parameters_of(path: Path) -> int:
    return sum(value.numel() for value in read_single_state(path).values())


def ship(options: Options) -> Path:
    """Write everything; returns the path of the card."""
    folder = options.new_folder()
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
    models = {
        name: describe(path, folder, parameters_of(path), *trained[name])
        for name, path in files.items()
    }
    seeds = seeds_of_sweep(Path(options.sweep)) if options.sweep else {}
    return write_card(folder, data, data_digest(data, *READ), models, seeds=seeds)


@entry_point
def main() -> None:
    print(ship(parse_options(Options, description=__doc__)))


if __name__ == "__main__":
    main()
