"""Pictures for captions, and the folder that holds them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prepare.shape_world.captions import Caption, Phrase, all_captions
from prepare.shape_world.drawing import draw
from prepare.shape_world.scene import CELLS, COLOURS, RESOLUTION, SIZES, Thing, stands
from utils.extras import extra
from utils.files import atomic_write, write_json, write_text
from utils.options import fixed_options, option, with_default
from utils.outputs import OutOptions
from utils.seeding import SeedOptions

METADATA = "metadata.jsonl"


@dataclass
class Options(SeedOptions, OutOptions):
    out: str = with_default("dataset/shapes")
    num_train: int = option(10_000, "pictures of the train split", minimum=1)
    num_validation: int = option(500, "pictures of the validation split", minimum=1)
    num_test: int = option(2000, "pictures of the test split", minimum=1)
    seed: int = with_default(0)


def scene_for(caption: Caption, rng: np.random.Generator) -> list[Thing]:
    """Objects that fulfil the caption, and no others; whatever it leaves open is drawn."""
    phrases = [phrase for phrase in caption.phrases for _ in range(phrase.count)]
    while True:
        cells = rng.permutation(len(CELLS))[: len(phrases)]
        things = [_place(p, int(cell), rng) for p, cell in zip(phrases, cells, strict=True)]
        if caption.cell not in ("", things[0].cell):
            continue
        if not caption.relation or stands(things[0], caption.relation, things[1]):
            return things


def _place(phrase: Phrase, cell: int, rng: np.random.Generator) -> Thing:
    """In a quarter of the picture, off its middle by as much as leaves a pixel to the border."""
    colour = phrase.colour or str(rng.choice(list(COLOURS)))
    size = phrase.size or str(rng.choice(list(SIZES)))
    quarter = RESOLUTION / 2
    play = quarter / 2 - SIZES[size] - 0.5
    x, y = rng.uniform(-play, play, 2)
    return Thing(
        phrase.shape,
        colour,
        size,
        x=quarter * (cell % 2 + 0.5) + float(x),
        y=quarter * (cell // 2 + 0.5) + float(y),
    )


def captions_of_split(split: str) -> list[Caption]:
    return [caption for caption in all_captions() if caption.split == split]


def drawn_captions(split: str, number: int, rng: np.random.Generator) -> Iterator[Caption]:
    """As many captions of each tag; all of a tag before one of them comes again."""
    captions = captions_of_split(split)
    tags = sorted({caption.tag for caption in captions})
    queues: dict[str, list[Caption]] = {tag: [] for tag in tags}
    for index in range(number):
        tag = tags[index % len(tags)]
        if not queues[tag]:
            same = [caption for caption in captions if caption.tag == tag]
            queues[tag] = [same[i] for i in rng.permutation(len(same))]
        yield queues[tag].pop()


def write_split(folder: Path, split: str, number: int, seed: int) -> None:
    """``NNNNN.png`` and the lines of ``metadata.jsonl``, which is written last."""
    from PIL import Image

    rng = np.random.default_rng([seed, ("train", "validation", "test").index(split)])
    lines = []
    captions = drawn_captions(split, number, rng)
    for index, caption in enumerate(tqdm(captions, split, number, unit="picture")):
        name = f"{index:05d}.png"
        with atomic_write(folder / split / name) as temporary:
            Image.fromarray(draw(scene_for(caption, rng))).save(temporary)
        lines.append(json.dumps({"file_name": name, "text": caption.text, "tag": caption.tag}))
    write_text(folder / split / METADATA, "\n".join(lines) + "\n")


def build(options: Options) -> None:
    """Write the dataset in the layout of an image folder. Raises UserError without Pillow."""
    extra("PIL")
    folder = options.new_folder()
    sizes = {
        "train": options.num_train,
        "validation": options.num_validation,
        "test": options.num_test,
    }
    for split, number in sizes.items():
        write_split(folder, split, number, options.seed)
    write_json(folder / "dataset.json", {**fixed_options(options), "world": "shapes"})
