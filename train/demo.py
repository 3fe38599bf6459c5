"""SoPo at work: a small model before and after, on two CPU cores within six minutes.

    python -m train.demo
    python -m train.demo --full
    python -m train.demo --images

It makes the embedded dataset, takes the base, the reward and the judge that come with the project,
tunes the base for the same number of steps with plain denoising (sft) and with SoPo, judges all
three, and draws them beside the real clip. It ends with a page that says which differences are
larger than those between seeds. With --full it trains the models themselves first, which takes
half an hour more. --images does the same with pictures of coloured shapes, LoRA and an oracle that
reads their facts from the pixels. Every stage is an ordinary command (configs/reproduce/demo.yaml
and demo_images.yaml), which is printed; what is finished is skipped, and what was cut off goes on
where it stopped.
"""

from utils.start import entry_point

from dataclasses import dataclass, replace
from pathlib import Path

from train.plans import Places, carry_out, read_plans
from train.stages import DryRunOptions
from utils.cores import usable_cores
from utils.options import option, parse_options


@dataclass
class Options(DryRunOptions):
    full: bool = option(False, "train reward, judge, base and evaluators from nothing as well")
    images: bool = option(False, "pictures instead of motions")


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    demo = "demo_images" if options.images else "demo"
    names = [f"{demo}_full", demo] if options.full else [demo]
    folder = Path("save", names[0])
    places = Places(results=str(folder))
    if options.full:
        trained = {"pictures": f"{folder}/shapes", "weights": f"{folder}/embedded"}
        places = replace(places, **trained)
    jobs = min(2, usable_cores())
    carry_out(read_plans(names, places), folder, options.dry_run, jobs, show=True)


if __name__ == "__main__":
    main()
