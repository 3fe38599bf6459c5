"""Make the embedded picture dataset: coloured shapes with captions whose truth can be measured.

    python -m prepare.shapes --out dataset/shapes

32 x 32 pixels with up to four objects, one in each quarter, in the layout of an image folder:
train, validation and test with PNG files and metadata.jsonl. The captions come from a grammar of
counts, sizes, colours, positions and relations; 15 % of what it can say occurs in the test split
only. prepare/shape_world/oracle.py reads the objects back from the pixels.
"""

from utils.start import entry_point

from prepare.shape_world.dataset import Options, build
from utils.options import parse_options


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    build(options)
    total = options.num_train + options.num_validation + options.num_test
    print(f"wrote {total} pictures to {options.out}")


if __name__ == "__main__":
    main()
