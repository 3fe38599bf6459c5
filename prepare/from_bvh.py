"""Turn a folder of BVH motion capture files and a table of captions into a dataset.

    python -m prepare.from_bvh --bvh_dir DIR --captions captions.csv --out dataset/NAME
    python -m prepare.from_bvh --bvh_dir DIR --captions captions.csv --out dataset/NAME \\
        --input_format asf_amc --frame_rate cmu

captions.csv has the columns `file` and `caption`, one row per caption, and optionally `facts`,
`meaning`, `family`, `split`, `labels` (docs/bvh.md). The result has the layout of HumanML3D (see
prepare/write_dataset.py), so `--dataset NAME` opens it everywhere.

Each clip is read, mapped to the 22 joints of HumanML3D (built-in maps for ten families of joint
names, or --joint_map FILE.yaml), resampled to 20 fps, turned to Y up, moved onto the reference
body, set on the floor facing +Z, and written together with its left-right mirror image. Files that
cannot be used are left out; OUT/report.json gives the reasons.

Lengths count feature rows, one fewer than poses: under 40 (2 s) a clip is skipped, or held at its
last pose with --pad_short; up to 199 it stays; beyond that --long cuts it to 196 or into pieces.

Files without a split in a table are shared out at random, at least one to each split where there
are three or more. What trainings will need, and do not find, is said at the end.
"""

from utils.start import entry_point

from pathlib import Path

from data_loaders.humanml import resolve_dataset
from prepare.bvh.dataset import Options, build_dataset
from prepare.survey import survey_dataset
from utils.commands import typed
from utils.options import parse_options


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    report = build_dataset(options)
    print(report.summary())
    print(f"wrote {options.out}; reasons in {Path(options.out) / 'report.json'}")
    for warning in survey_dataset(resolve_dataset(options.out, options.out)).warnings:
        print(f"warning: {warning}")
    print(typed(f"look at it with: python -m prepare.inspect {options.out}"))


if __name__ == "__main__":
    main()
