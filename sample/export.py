"""Write generated motions for Blender, game engines, robots and SMPL tools.

    python -m sample.export save/samples_.../results.npy --format bvh glb
    python -m sample.export new_joint_vecs/000021.npy --format bvh --fps 30 --skeleton lafan1
    python -m sample.export results.npy --format smpl --smpl_path SMPL_NEUTRAL.pkl

RESULTS is a results.npy of generation, a feature array [T, 263] or [T, 251] (not normalised), or
joints [T, 22, 3] or [T, 21, 3]. The files are named as generation names its videos
(sample00_rep00.bvh), or after the array. Formats, units and axes: docs/export.md.
"""

from utils.start import entry_point

import sys
from dataclasses import dataclass

from export.formats import FORMATS, ExportOptions, export_motions
from sample.exported import default_folder, load_motions
from utils.options import option, parse_options, with_default
from utils.outputs import OutputDirOptions


@dataclass
class Options(ExportOptions, OutputDirOptions):
    results: str = option("", "results.npy, or an array of features or joints", required=True)
    format: list[str] = option(["bvh"], "formats to write", choices=FORMATS)
    output_dir: str = with_default("", "folder to write to; none = `export` beside the input")


@entry_point
def main() -> None:
    words = sys.argv[1:]
    named = ["--results"] if words and not words[0].startswith("-") else []
    options = parse_options(Options, [*named, *words], description=__doc__)
    motions = load_motions(options.results)
    options.check_formats(options.format, motions[0].skeleton)
    folder = options.new_folder(default_folder(options.results))
    errors = export_motions(motions, options.format, folder, options)
    print(errors.table())
    print(f"wrote {len(motions)} motions to {folder}")


if __name__ == "__main__":
    main()
