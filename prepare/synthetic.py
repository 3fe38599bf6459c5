"""Make the embedded dataset: procedural human motion with captions whose truth can be measured.

    python -m prepare.synthetic --out dataset/synthetic
    python -m prepare.synthetic --skeleton kit --out dataset/synthetic_kit

The clips are in the HumanML3D layout (20 fps, 263 features, 22 joints). About 60 % show one action,
the rest a way of travelling followed by a gesture ("walks forward and then waves the left hand").
A fifth of those combinations is held out: it occurs in the test split only. ``annotations.json``
holds the facts that every caption states; ``data_loaders.facts`` measures them on any motion. With
--skeleton kit the set is in KIT-ML's layout: 12.5 fps, 251 features, 21 joints, and no facts.
"""

from utils.start import entry_point

from prepare.procedural.dataset import Options, build
from utils.options import parse_options


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    build(options)
    print(f"wrote {options.num_clips} clips to {options.out}")


if __name__ == "__main__":
    main()
