"""Judge generated motions of one or several models with TMR models and with the oracle.

    python -m eval.eval_tmr --dataset synthetic --split val --reward_path save/reward \\
        --judge_path save/judge --names base sopo sopo --output save/table.json \\
        --model_path save/mdm/model000002000.pt save/sopo{1,2}/model000000100.pt

For every model, one motion is generated for the first caption of each clip, from the same noise,
or several, of which the training reward keeps the best (--best_of).
Checkpoints of one name are seeds of one method: their row is the mean and the 95 % interval.
The table shows the training reward beside figures that training never saw: retrieval by a second
TMR (pools of 32 distinct meanings, the whole split, and hard pools that share the content), FID in
that judge's space, and the share of stated facts that hold on the joints. The row `real` is the
dataset itself: a model above it has exploited the judge, not surpassed people. With --reconstruct,
rows `NAME coded` hold the dataset after the code of a model and back, which is as far as anything
can get that is sampled in a VAE's latents or in tokens.
"""

from utils.start import entry_point

from dataclasses import asdict, dataclass

from eval.judging import JudgedOptions, embed, format_table, judge_motions, load_judge
from eval.motion_sets import (
    FiguresFile,
    coded_motions,
    generated_motions,
    joint_error,
    load_model,
    open_split,
    real_motions,
)
from rewards.best_of import BestOf, BestOfOptions
from rewards.load import load_reward
from utils.devices import pick_device
from utils.options import option, parse_options, with_default


@dataclass
class Options(FiguresFile, JudgedOptions, BestOfOptions):
    reward_path: list[str] = with_default([], "run folders of the training reward")

    reconstruct: bool = option(
        False, "judge what the code of each model keeps of real motions, too"
    )

    def validate(self) -> None:
        JudgedOptions.validate(self)
        BestOfOptions.validate(self)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    data = open_split(options)
    reward = load_reward(options, pick_device(options.device), data)
    judge = load_judge(options.judge_path, options, data.skeleton)
    real = real_motions(data, options.batch_size)
    embeddings = embed(judge, real)
    rows = {"real": [judge_motions(real, embeddings, data, reward, judge, options.seed)]}
    for name, path in zip(options.model_names(), options.model_path, strict=True):
        generator = load_model(path, options, data.skeleton)
        if options.reconstruct:
            coded = coded_motions(generator, real, options.batch_size)
            millimetres = 1000 * joint_error(coded, real, data.skeleton)
            print(f"{name} coded: joints {millimetres:.1f} mm from the real ones on average")
            figures = judge_motions(coded, embeddings, data, reward, judge, options.seed)
            rows.setdefault(f"{name} coded", []).append(figures)
        chosen = options.around(generator, reward, options.batch_size)
        motions = generated_motions(chosen, real, options, name)
        if isinstance(chosen, BestOf):
            print(f"{name}: {chosen.summary()}")
        figures = judge_motions(motions, embeddings, data, reward, judge, options.seed)
        rows.setdefault(name, []).append(figures)
    print(f"{options.dataset}, {options.split} split, {len(real.captions)} captions")
    print(format_table(rows))
    invalid = {name: n for name, s in rows.items() if (n := sum(f.invalid_motions for f in s))}
    if invalid:
        print(f"warning: motions with NaN or infinity, left out of their rows: {invalid}")
    options.write(
        {
            "options": asdict(options),
            "captions": len(real.captions),
            "rows": {name: [asdict(figures) for figures in seeds] for name, seeds in rows.items()},
        }
    )


if __name__ == "__main__":
    main()
