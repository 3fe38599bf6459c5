"""The page that the demo ends with: its tables in words, and which differences mean something.

    python -m eval.demo_report --judged table.json --benchmarks BASE.json SFT.json SOPO.json \\
        --card CARD.json --tuned_path MODEL.pt --examples FOLDER --output report.md

One run says little about a method. The card that comes with the weights holds the figures of
several seeds of the same tuning; a difference of this run counts where it exceeds what the seed
alone makes of the difference of two runs (95 %).
"""

from utils.start import entry_point

from dataclasses import dataclass
from typing import Any

from eval.judging import Figures, format_table, sampling_words
from eval.seed_spread import Difference, Row, benchmark_rows, differences, judged_rows
from utils.commands import typed
from utils.errors import UserError
from utils.files import read_json, write_text
from utils.options import option, parse_options
from utils.tables import markdown_table

SHOWN = ("R@1", "R@2", "R@3", "FID", "MM-Dist", "Diversity")  # of the evaluators
JUDGED_WORDS = """\
- **reward**: what SoPo was tuned to raise, by the model that ranked its candidates. A gain here
  alone proves nothing; look for it in the columns that no training saw.
- **R@1 to R@3, split, hard**: how often a second TMR, the judge, finds the right motion for a
  caption first (or among the first two, three) of 32, of the whole split, or of 32 that share the
  content. Larger is better, and the row `real` is as good as it gets.
- **FID**: how far the generated motions as a whole lie from the real ones in the judge's space.
  0 is the real set itself.
- **facts, sides, skating**: how much of what the captions state (counts, distances, left and right)
  holds, and how much the feet slide, measured on the joints. No network decides, so no model can
  flatter these."""
BENCHMARK_WORDS = """\
- **R@1 to R@3, MM-Dist**: do motion and caption fit, by evaluators of another kind (Guo et al.)
  that were trained apart. MM-Dist is the distance of a caption to its motion; smaller is better.
- **FID, Diversity**: the set as a whole in their space. Diversity should be near that of `real`,
  neither below nor above."""


@dataclass
class Options:
    judged: str = option("", "JSON of eval.eval_tmr: real, base, control, tuned", required=True)
    benchmarks: list[str] = option(
        [], "JSON of eval.eval_humanml for base, control and tuned model", required=True
    )
    card: str = option("", "card.json of the shipped weights, with several seeds", required=True)
    tuned_path: str = option("", "the tuned checkpoint, for the commands to try", required=True)
    examples: str = option("", "folder of eval.examples", required=True)
    output: str = option("", "Markdown file to write", required=True)


@dataclass(frozen=True)
class Results:
    """report: of eval.eval_tmr; benchmarks: of eval.eval_humanml by model; seeds: of the card."""

    report: dict[str, Any]
    benchmarks: dict[str, dict[str, Any]]
    seeds: dict[str, dict[str, list[Row]]]

    @staticmethod
    def read(options: Options) -> "Results":
        """Raises UserError where the files do not belong together."""
        report, seeds = read_json(options.judged), read_json(options.card).get("seeds")
        names = report["options"]["names"]
        if not seeds:
            raise UserError(f"{options.card} holds no figures of several seeds")
        if len(names) != len(options.benchmarks):
            raise UserError(
                f"--benchmarks names {len(options.benchmarks)} files for {', '.join(names)}"
            )
        benchmarks = [read_json(path) for path in options.benchmarks]
        return Results(report, dict(zip(names, benchmarks, strict=True)), seeds)

    @property
    def pair(self) -> tuple[str, str]:
        """Names of the control and of the tuned model: the last two rows."""
        *_, control, tuned = self.benchmarks
        return control, tuned

    def judged(self) -> list[Difference]:
        control, tuned = self.pair
        rows, seeds = judged_rows(self.report), self.seeds["judge"]
        return differences(rows[tuned][0], rows[control][0], seeds[tuned], seeds[control])

    def evaluated(self) -> list[Difference]:
        control, tuned = self.pair
        first, second = (benchmark_rows(self.benchmarks[name])[1] for name in (tuned, control))
        seeds = self.seeds["evaluators"]
        return differences(first, second, seeds[tuned], seeds[control])


def judged_table(report: dict[str, Any]) -> str:
    options, found = report["options"], report["rows"]
    rows = {n: [Figures(**seed) for seed in found[n]] for n in ("real", *options["names"])}
    heading = (
        f"{options['dataset']}, {options['split']} split, {report['captions']} captions, "
        f"{sampling_words(options)}, seed "
        f"{options['seed']}:"
    )
    return f"{heading}\n\n{format_table(rows)}"


def benchmark_table(benchmarks: dict[str, dict[str, Any]]) -> str:
    """Means over the replications; real data once."""
    real, _ = benchmark_rows(next(iter(benchmarks.values())))
    rows = {"real": real} | {name: benchmark_rows(b)[1] for name, b in benchmarks.items()}
    cells = [[name, *(f"{row[title]:.3f}" for title in SHOWN)] for name, row in rows.items()]
    return markdown_table(["evaluators", *SHOWN], cells)


def difference_table(who: str, found: list[Difference]) -> str:
    """A row per figure."""
    header = [who, "this run", "mean over seeds", "of the seed alone", "verdict"]
    rows = [
        [
            d.title,
            f"{d.here:+.3f}",
            f"{d.mean:+.3f} ± {d.half_width:.3f}",
            f"± {d.spread:.3f}",
            d.verdict,
        ]
        for d in found
    ]
    return markdown_table(header, rows)


def verdict(who: str, found: list[Difference], pair: tuple[str, str]) -> str:
    """One sentence: in what the two models differ by more than the seed explains."""
    titles = {v: ", ".join(d.title for d in found if d.verdict == v) for v in ("better", "worse")}
    control, tuned = pair
    if not any(titles.values()):
        return f"By {who}, no difference between {tuned} and {control} exceeds that of two seeds."
    told = " and ".join(f"{v} in {which}" for v, which in titles.items() if which)
    return f"By {who}, {tuned} is {told} than {control}, beyond what the seed makes."


def commands(options: Options, report: dict[str, Any]) -> str:
    """Three commands to try, which run as they are printed."""
    used = report["options"]
    base = used["model_path"][0]
    return typed(
        f"""\
    # a motion of your own, before and after
    python -m sample.compare --names base SoPo --text_prompt "a person jumps twice" \\
        --output_dir save/my_motion --model_path {base} {options.tuned_path}
    # the same tuning without the gate: every generated motion counts as unpreferred
    python -m train.train_sopo --config configs/demo/sopo.yaml --method dsopo \\
        --save_dir save/dsopo --model_path {base} --reward_path {" ".join(used["reward_path"])}
    # reward, judge, base and evaluators from nothing as well, in about an hour
    python -m train.demo --full"""
    )


def page(options: Options) -> str:
    results = Results.read(options)
    judged, evaluated, pair = results.judged(), results.evaluated(), results.pair
    control, tuned = pair
    count = len(results.seeds["judge"][tuned])
    return f"""\
# The demo: {tuned} against {control}, the same number of plain denoising steps

{judged_table(results.report)}

{JUDGED_WORDS}

{benchmark_table(results.benchmarks)}

{BENCHMARK_WORDS}

## Which differences mean something

{tuned} minus {control}, in this run and as the mean of {count} seeds with its 95 % interval.
Through their seeds alone, two runs differ by up to the last figures but one (95 %); what exceeds
them is called better or worse.

{difference_table("reward, judge, joints", judged)}

{difference_table("evaluators", evaluated)}

{verdict("reward, judge and joints", judged, pair)}
{verdict("the evaluators", evaluated, pair)}

## Look at it

Captions chosen by the judge's gain alone, the real clip beside the models, reward, judge's score
and facts at each: {options.examples}/examples.md

In 3-D, for a browser, with captions from all over that order: {options.examples}/index.html

{commands(options, results.report)}
"""


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    write_text(options.output, page(options))
    print(options.output)


if __name__ == "__main__":
    main()
