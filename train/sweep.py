"""The rows of a table with several seeds: train them all, judge them, print the table.

    python -m train.sweep --config configs/sweeps/methods_mocap.yaml --dry_run
    python -m train.sweep --config configs/sweeps/methods_mocap.yaml --seeds 1 2 3 --jobs 4

The YAML file (`config` in any part names a file of the same options to start from):

    save_dir: save/table4            a folder ROW_seedS per run, logs and tables
    seeds: [1, 2, 3]
    common:                          options of train.train_sopo
      config: configs/mocap/sopo.yaml
      model_path: save/base/model000004000.pt
    rows:                            what differs; null takes an option of `common` back
      sft: {method: sft}
      sopo: {method: sopo, tau_quantile: 0.1}
    pairs: {num_captions: 2000}      options of prepare.preference_pairs, run where rows need it
    evaluation:                      options of eval.eval_tmr (seeds together in one table; further
      eval_tmr: {split: test}        ones are called eval_tmr_NAME) and of eval.eval_humanml (and
                                     of eval.tables over its results)

Pairs and evaluations take dataset and reward from `common`, pairs also model and candidates. With
`script: train.train_sopo_image` the rows are options of that, and `eval_images` judges them. Every
run is an ordinary command, printed before it starts; what is finished is skipped and what was cut
off goes on. Rows are judged by their last checkpoints, after the same number of steps.
"""

from utils.start import entry_point

import signal

from train.picture_sweep import sweep_of
from train.stages import Stage, StageRunner
from train.sweep_plan import Options, Sweep
from utils.errors import UserError
from utils.options import parse_options


def train_and_judge(sweep: Sweep, runner: StageRunner) -> list[Stage]:
    """Run what remains, print the tables of the runs that are finished; returns what failed."""
    failed = runner.run(list(sweep.pairs.values()))
    failed += runner.run(sweep.runs)
    if finished := [run for run in sweep.runs if run.done]:
        failed += sweep.judge(finished, runner)
    return failed


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    sweep = sweep_of(options)
    runner = StageRunner(sweep.folder, options.jobs)
    runner.show_plan(sweep.stages(), options.dry_run)
    sweep.check_inputs()
    if options.dry_run:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the runs as well
    if failed := train_and_judge(sweep, runner):
        names = ", ".join(stage.title for stage in failed)
        raise UserError(f"{len(failed)} failed ({names}); the same command goes on from there")


if __name__ == "__main__":
    main()
