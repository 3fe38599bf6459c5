"""Everything that docs/results.md reports, from the data to the tables, with one command.

    python -m train.reproduce --dry_run
    python -m train.reproduce --benchmark mocap --bvh_dir MOCAP
    python -m train.reproduce --benchmark cmu

It says beforehand what it will run and about how long that takes; what is finished is skipped and
what was cut off goes on. `mld` and `momask` are the other families on the embedded data. MOCAP is
the folder of docs/mocap.md; `cmu` needs what docs/data.md tells
to download, and docs/results.md does not report it. train/plans.py says what a benchmark is; the
demo is one of them.
"""

from utils.start import entry_point

from dataclasses import dataclass
from pathlib import Path

from train.plans import Places, carry_out, read_plans
from train.stages import RunnerOptions
from utils.options import option, parse_options, with_default

BENCHMARKS = ("synthetic", "mld", "momask", "mocap", "cmu", "demo")


@dataclass
class Options(RunnerOptions):
    benchmark: str = option("synthetic", "what to rerun", choices=(*BENCHMARKS, "both"))
    bvh_dir: str = option("MOCAP", "folder of motion capture archives, as in docs/mocap.md")
    save_dir: str = with_default("save/reproduce", "folder of logs and times")
    jobs: int = with_default(4)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    places = Places(bvh_dir=options.bvh_dir, jobs=options.jobs)
    names = ("synthetic", "mocap") if options.benchmark == "both" else (options.benchmark,)
    stages = read_plans(names, places, options.dry_run)
    carry_out(stages, Path(options.save_dir), options.dry_run)


if __name__ == "__main__":
    main()
