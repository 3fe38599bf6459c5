"""HumanML3D's captions on the free CMU motion capture: a real dataset without a licence to sign.

    bash prepare/download_cmu.sh
    bash prepare/download_humanml_texts.sh
    python -m prepare.humanml_cmu --mocap dataset/CMU --humanml dataset/HumanML3D \\
        --out dataset/HumanML3D-CMU
    python -m prepare.humanml_cmu --out dataset/HumanML3D-CMU --verify
    python -m prepare.humanml_cmu --out dataset/HumanML3D-CMU --compare dataset/FROM_AMASS

A fifth of HumanML3D's clips are cut from the CMU database. The first form cuts them again, out of
the original ASF/AMC files (or BVH copies, where there are no others), under their names and in
their splits. What is missing is counted and named in OUT/report.json. docs/data.md says what can be
claimed on the result.

--verify checks the join on OUT: do the motions do what the captions say, and do clips of whole
trials end where the trials end? The exit code is 1 when they do not. --compare prints how far OUT
is from the same clips of HumanML3D itself, for those who have it; with --tmr_path also how a TMR
that was trained on HumanML3D sees both.
"""

from utils.start import entry_point

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

from model.text.encoders import TextEncoderOptions
from prepare.bvh.convert import MirrorOptions
from prepare.cmu.build import build_dataset
from prepare.cmu.compare import compare, read_pairs
from prepare.cmu.humanml import read_humanml
from prepare.cmu.trials import find_trials
from prepare.cmu.verify import verify
from prepare.workers import JobOptions
from prepare.write_dataset import DatasetWriter
from tmr.model import TMR
from utils.errors import UserError
from utils.files import write_json
from utils.options import option, parse_options, with_default
from utils.outputs import OutOptions


@dataclass
class Options(MirrorOptions, JobOptions, TextEncoderOptions, OutOptions):
    mocap: str = option("", "folder of the CMU database: ASF/AMC files or BVH copies")
    humanml: str = option("", "HumanML3D's repository (folder or zip), or what is there of it")
    out: str = with_default("", "dataset folder to make, or to check")
    verify: bool = option(False, "check that motions and captions of --out belong together")
    compare: str = option("", "folder of HumanML3D itself, to measure the distance of --out to it")
    tmr_path: str = option("", "run folder of a TMR trained on HumanML3D itself, for --compare")

    def validate(self) -> None:
        if self.verify and self.compare:
            raise UserError("--verify and --compare are two commands; give one of them")
        if not (self.verify or self.compare or (self.mocap and self.humanml)):
            raise UserError(
                "give --mocap and --humanml to make --out, or --verify or --compare to check it"
            )
        if self.tmr_path and not self.compare:
            raise UserError("--tmr_path belongs to --compare")


def run_build(options: Options) -> None:
    """Make the dataset and print what is in it and what is missing."""
    humanml = read_humanml(options.humanml)
    root = Path(options.mocap)
    trials = find_trials(root)
    info = {"made_by": "prepare.humanml_cmu", "options": dataclasses.asdict(options)}
    with DatasetWriter(options.out, overwrite=options.overwrite, info=info) as writer:
        report = build_dataset(humanml, trials, root, writer, options.mirror, options.jobs)
    print(report.summary())
    print(f"wrote {options.out}; names in {Path(options.out) / 'report.json'}")


def run_verification(options: Options) -> None:
    """Print the checks. The exit code is 1, and OUT/verify.json is not written, when one fails."""
    found = verify(Path(options.out))
    print(found.table())
    if not found.right:
        print(f"motions and captions of {options.out} do NOT belong together")
        sys.exit(1)
    content = {"options": dataclasses.asdict(options), **dataclasses.asdict(found)}
    write_json(Path(options.out) / "verify.json", content)
    print(f"motions and captions of {options.out} belong together")


def run_comparison(options: Options) -> None:
    """Print how far the clips are from those of HumanML3D itself."""
    pairs = read_pairs(Path(options.out), Path(options.compare))
    model = None
    if options.tmr_path:
        model = TMR.load(options.tmr_path, text_encoder_path=options.text_encoder_path)
    print(compare(pairs, model).table())


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    if options.verify:
        run_verification(options)
    elif options.compare:
        run_comparison(options)
    else:
        run_build(options)


if __name__ == "__main__":
    main()
