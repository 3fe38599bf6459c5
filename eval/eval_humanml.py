"""The table of a model: R-Precision, FID, MM-Dist, Diversity, MultiModality.

    python -m eval.eval_humanml --model_path save/my_model/model000475000.pt --eval_mode wo_mm
    python -m eval.eval_humanml --model_path ... --eval_mode full --split test --resume
    python -m eval.eval_humanml --model_path ... --dataset mine --evaluator_dir evaluators/mine

Modes (Tevet et al. 2023): wo_mm = 20 replications; mm_short = 5 with MultiModality; debug = 5;
full = 20 with MultiModality. Each replication generates 1024 motions for captions and lengths of
the split and walks the whole split as ground truth. Needs upstream's evaluators (folder t2m or
kit), their statistics and the folder glove, or the folder of train.train_evaluators. Where a
dataset has annotations, R-Precision draws pools of 32 distinct meanings, and the table says so.

Writes eval_humanml_{folder}_{step}_gscale{g}_{mode}.log beside the checkpoint (with _{split} for
another split than test), a .json of all values, and the table as .md, .tex and .csv. A stopped
evaluation goes on at the next replication with --resume and gives the figures of an unbroken one.
--judge_path, --reward_path and --measure_motions add what an independent TMR, the training reward,
the feet, the jerk and the stated facts say of one motion per clip, beside the real ones.
"""

from utils.start import entry_point

from eval.humanml_benchmark import Options, evaluate
from utils.options import parse_options


@entry_point
def main() -> None:
    print(f"log: {evaluate(parse_options(Options, description=__doc__))}")


if __name__ == "__main__":
    main()
