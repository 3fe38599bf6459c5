"""Pictures for prompts, from one noise per seed, and their files.

The folders are those of GenEval (Ghosh et al. 2023): 00000/metadata.jsonl with the prompt and
00000/samples/0000.png, 0001.png, ... for its seeds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.images.sources import pil_of
from model.image.generator import ImageGenerator
from sample.video import wrap
from utils.errors import UserError
from utils.extras import extra
from utils.files import atomic_write, read_json, write_text

GAP = 4  # pixels between the pictures of a grid
LETTERS, TITLES, CAPTIONS = 14, 24, 200  # pixels: height of letters and titles, width of captions


@dataclass(frozen=True)
class Prompt:
    """A caption, and whatever a benchmark's line says of it."""

    text: str
    record: dict[str, Any]


def read_prompts(path: Path) -> list[Prompt]:
    """One prompt per line of a text file; ``prompt`` of every line of a .jsonl file (GenEval); or
    the list of a .json file (HPSv2's benchmark).

    Raises UserError when there is none.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        if path.suffix == ".json":
            records = [{"prompt": str(text)} for text in read_json(path)]
        else:
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            jsonl = path.suffix == ".jsonl"
            records = [json.loads(line) if jsonl else {"prompt": line.strip()} for line in lines]
        prompts = [Prompt(str(record["prompt"]), record) for record in records]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} holds a line without a prompt ({error})") from None
    if not prompts:
        raise UserError(f"{path} holds no prompt")
    return prompts


def generate_pictures(
    generator: ImageGenerator, captions: Sequence[str], seed: int, resolution: int, batch_size: int
) -> Tensor:
    """One picture ``[N, 3, H, W]`` per caption, on the CPU; the n-th starts from the noise of seed
    and n alone, so that models are compared from the same noise whatever the batch size."""
    parts = []
    for start in tqdm(range(0, len(captions), batch_size), desc=f"seed {seed}", unit="batch"):
        part = list(captions[start : start + batch_size])
        shape = generator.blank(1, resolution, resolution).x.shape
        rngs = [
            torch.Generator().manual_seed((seed * 1_000_003 + start + i) % 2**63)
            for i in range(len(part))
        ]
        noise = torch.cat([torch.randn(shape, generator=rng) for rng in rngs])
        made = generator.sample_from(
            noise.to(generator.device),
            generator.encode_text(part),
            torch.Generator(generator.device).manual_seed(seed),
        )
        parts.append(generator.decode(made).x.cpu())
    return torch.cat(parts)


def write_geneval(folder: Path, prompts: Sequence[Prompt], pictures: Tensor) -> None:
    """Write pictures ``[N, seeds, 3, H, W]`` of N prompts."""
    for number, (prompt, row) in enumerate(zip(prompts, pictures, strict=True)):
        place = folder / f"{number:05d}"
        record = json.dumps({"prompt": prompt.text, **prompt.record})
        write_text(place / "metadata.jsonl", record + "\n")
        for index, picture in enumerate(row):
            save_png(place / "samples" / f"{index:04d}.png", picture)


def save_png(path: Path, picture: Tensor) -> None:
    with atomic_write(path) as temporary:
        pil_of(picture).save(temporary, format="PNG")


def save_grid(
    path: Path,
    pictures: Tensor,
    captions: Sequence[str],
    titles: Sequence[str] = (),
    enlarge: int = 1,
) -> None:
    """Pictures ``[rows, columns, 3, H, W]`` as one, with the caption of each row beside it and the
    title of each column above; each pixel `enlarge` times as wide."""
    image, draw = extra("PIL.Image"), extra("PIL.ImageDraw")
    font = extra("PIL.ImageFont").load_default(LETTERS)
    rows, columns, _, height, width = pictures.shape
    wide, high, top = width * enlarge + GAP, height * enlarge + GAP, TITLES if titles else 0
    grid = image.new("RGB", (columns * wide + CAPTIONS, top + rows * high - GAP), "white")
    pen = draw.Draw(grid)
    for column, title in enumerate(titles):
        pen.text((column * wide + (wide - GAP) / 2, top / 2), title, "black", font, anchor="mm")
    for row, caption in enumerate(captions):
        lines = "\n".join(wrap(caption, font, CAPTIONS - 2 * GAP))
        place = (columns * wide + GAP, top + row * high + (high - GAP) / 2)
        pen.multiline_text(place, lines, "black", font, anchor="lm")
        for column in range(columns):
            picture = pil_of(pictures[row, column])
            large = picture.resize((wide - GAP, high - GAP), image.Resampling.NEAREST)
            grid.paste(large, (column * wide, top + row * high))
    with atomic_write(path) as temporary:
        grid.save(temporary, format="PNG")
