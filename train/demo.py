"""The whole method on the embedded dataset, in about ten minutes on four CPU cores.

    python -m train.demo

Data, reward model, an independent judge, the base model, then the same number of tuning steps with
plain denoising (sft) and with SoPo, one table, and animations of all three side by side. Every
stage is an ordinary command, which is printed before it runs. A stage whose result exists is
skipped, so an interrupted demo goes on where it stopped.
"""

from utils.start import entry_point

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from train.stages import Stage
from utils.errors import UserError
from utils.options import option, parse_options

CONFIGS = Path(os.path.relpath(Path(__file__).resolve().parent.parent / "configs" / "demo"))
BASE_STEPS, TUNING_STEPS = 2600, 100


@dataclass
class Options:
    save_dir: str = option("save/demo", "folder of all results")
    data_dir: str = option("dataset/synthetic", "folder of the dataset; made if missing")
    seed: int = option(10, "seed of data, models and evaluation")
    device: str = option("auto", "auto, cpu, cuda, or a CUDA index")


def stages(options: Options) -> list[Stage]:
    """The demo, in order."""
    save, seed = Path(options.save_dir), options.seed
    data = ["--dataset", "synthetic", "--data_dir", options.data_dir]
    common = [*data, "--device", options.device, "--train_platform_type", "NoPlatform"]
    # A stage without its product was cut off: what it left behind may be written over
    common.append("--overwrite")
    base = save / "base" / f"model{BASE_STEPS:09d}.pt"
    tuned = {m: save / m / f"model{TUNING_STEPS:09d}.pt" for m in ("sft", "sopo")}
    reward, judge = save / "reward", save / "judge"
    last = Path("last_weights", "motion_decoder.pt")  # of a TMR; best.json is there far earlier
    sampler = ["--sampler", "ddim", "--sample_steps", "10"]  # as the candidates of the tuning
    models = ["--model_path", *map(str, (base, *tuned.values())), "--names", "base", "sft", "sopo"]

    def train(script: str, config: str, folder: Path, *arguments: str) -> list[str]:
        where = ["--config", str(CONFIGS / config), "--save_dir", str(folder)]
        return [f"train.{script}", *where, *common, *arguments]

    def tmr(folder: Path, phrasings: str, seed: int) -> list[str]:
        return train("train_tmr", "tmr.yaml", folder, "--phrasings", phrasings, "--seed", str(seed))

    def tune(method: str) -> Stage:
        arguments = ["--method", method, "--model_path", str(base), "--reward_path", str(reward)]
        arguments += ["--num_steps", str(TUNING_STEPS), "--seed", str(seed)]
        command = train("train_sopo", "sopo.yaml", tuned[method].parent, *arguments)
        return Stage(f"{method}: {TUNING_STEPS} steps from the base", tuned[method], command)

    synthetic = ["prepare.synthetic", "--out", options.data_dir, "--seed", str(seed)]
    mdm = train("train_mdm", "mdm.yaml", base.parent)
    mdm += ["--num_steps", str(BASE_STEPS), "--seed", str(seed)]
    table = ["eval.eval_tmr", *data, "--split", "test", "--reward_path", str(reward)]
    table += ["--judge_path", str(judge), *models, "--seed", str(seed)]
    table += [*sampler, "--device", options.device, "--output", str(save / "table.json")]
    compare = ["sample.compare", *models, "--input_text", str(CONFIGS / "prompts.txt")]
    compare += ["--data_dir", options.data_dir, "--motion_length", "4", "--seed", str(seed)]
    compare += ["--device", options.device, "--output_dir", str(save / "videos"), "--overwrite"]
    compare += [*sampler, "--video", "gif"]  # needs no ffmpeg
    prompts = (CONFIGS / "prompts.txt").read_text(encoding="utf-8").splitlines()
    last_video = save / "videos" / f"compare{len(prompts) - 1:02d}.gif"
    return [
        Stage("dataset", Path(options.data_dir) / "dataset.json", synthetic),
        Stage("reward model", reward / last, tmr(reward, "even", seed)),
        Stage("independent judge", judge / last, tmr(judge, "odd", seed + 67)),
        Stage("base model", base, mdm),
        tune("sft"),
        tune("sopo"),
        Stage("animations", last_video, compare),
        Stage("table", save / "table.json", table),
    ]


def run(stage: Stage, number: int, total: int) -> None:
    """Raises UserError where the stage fails; its own message stands above."""
    print(f"\n[{number}/{total}] {stage.title}")
    print(f"    {stage.command}", flush=True)
    if subprocess.run([sys.executable, "-m", *stage.arguments]).returncode:
        raise UserError(f"the stage '{stage.title}' failed; run the demo again to go on from there")


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    started = time.monotonic()
    todo = stages(options)
    for number, stage in enumerate(todo, start=1):
        if stage.done:
            print(f"\n[{number}/{len(todo)}] {stage.title}: {stage.product} exists, skipped")
        else:
            run(stage, number, len(todo))
    videos = sorted((Path(options.save_dir) / "videos").glob("compare*"))
    print("\nbase, sft and sopo side by side:", *videos, sep="\n    ")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
