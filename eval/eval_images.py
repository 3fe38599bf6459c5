"""Judge pictures of one or several models: oracle, rewards, wins, distance.

    python -m eval.eval_images --data_dir dataset/shapes --model_path save/shapes_base/pipeline \\
        --names base sft sopo sopo --lora_path none save/sft save/sopo1 save/sopo2 \\
        --reward clip --reward_path save/shapes_reward/clip \\
        --judge clip --judge_path save/shapes_judge/clip --output save/pictures.json
    python -m eval.eval_images --prompts HPDv2/benchmark/*.json --reward hpsv2 ...

The models are one pipeline with different LoRA; those of one name are seeds of one method, and
their row is the mean and the 95 % interval. All start from the same noise. Prompts are the captions
of a split, or those of files (HPSv2's benchmark, GenEval); where the shape world's grammar knows
them all, its oracle reads the facts from the pixels. The win rate is against the first model.
"""

from utils.start import entry_point

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_loaders.images.dataset import PictureOptions, open_pictures
from eval.motion_sets import FiguresFile
from eval.picture_figures import (
    NO_LORA,
    PictureFigures,
    embeddings_of,
    format_page,
    judge_pictures,
)
from model.image.load import ImageGeneratorOptions, resolution_of, with_lora
from model.image.lora import lora_file
from rewards.image import ImageRewardOptions, embeds, load_image_reward
from rewards.seam import Reward
from sample.pictures import generate_pictures, read_prompts, save_grid
from utils.devices import pick_device
from utils.errors import UserError
from utils.files import write_text
from utils.options import option, parse_options, with_default
from utils.tables import NamesOptions

GRID_ROWS, GRID_PIXELS = 12, 96  # prompts in the picture; small pictures are drawn that large


@dataclass
class Options(ImageRewardOptions, ImageGeneratorOptions, PictureOptions, NamesOptions, FiguresFile):
    lora_path: list[str] = option([NO_LORA], f"LoRA of each model; {NO_LORA} = the model as it is")
    prompts: list[str] = option([], "files of prompts; none = the captions of a split")
    split: str = option("test", "which split", choices=("train", "validation", "test"))
    judge: list[str] = option([], "kind of the independent judge, as in --reward; none = no judge")
    judge_path: list[str] = option([], "its folder, file or name on the hub")
    reward: list[str] = with_default([])
    output: str = with_default(
        "save/eval_images.json", "JSON file; a page and a grid lie beside it"
    )

    def validate(self) -> None:
        ImageRewardOptions.validate(self)
        self.check_names(len(self.lora_path), "models")
        self.names = self.names or [Path(path).name for path in self.lora_path]
        try:
            ImageRewardOptions.validate(self.judging)
        except UserError as error:
            raise UserError(f"of the judge: {error}") from None

    @property
    def judging(self) -> "Options":
        """These options with the judge as reward."""
        return replace(self, reward=self.judge, reward_path=self.judge_path, reward_weights=[])

    def rewards(self, device: torch.device) -> tuple[Reward | None, Reward | None]:
        """The reward and the judge, where there are any."""
        pair = [load_image_reward(o, device) if o.reward else None for o in (self, self.judging)]
        return pair[0], pair[1]


@dataclass(frozen=True)
class Questions:
    """Captions, and the judge's embeddings of real pictures where it has such."""

    captions: list[str]
    real: np.ndarray | None


def questions(options: Options, resolution: int, judge: Reward | None) -> Questions:
    """Raises UserError when there are no prompts."""
    if options.prompts:
        texts = [p.text for path in options.prompts for p in read_prompts(Path(path))]
        return Questions(texts[: options.max_pictures or None], None)
    data = open_pictures(options, options.split, resolution)
    print(data.report())
    embeds_them = judge is not None and embeds(judge)
    real = embeddings_of(judge, data.pixels(data.rows)) if embeds_them else None
    return Questions([row.caption for row in data.rows], real)


def evaluate(options: Options) -> dict[str, list[PictureFigures]]:
    """The figures of every model, by name; writes a grid of their first pictures."""
    for lora in set(options.lora_path) - {NO_LORA}:
        lora_file(lora)  # what is missing is told before the first model has been sampled
    device = pick_device(options.device)
    reward, judge = options.rewards(device)
    asked: Questions | None = None
    rows: dict[str, list[PictureFigures]] = {}
    columns: dict[str, Tensor] = {}
    first: list[float] | None = None
    for name, lora in zip(options.names, options.lora_path, strict=True):
        generator = with_lora(options.load_generator(device), "" if lora == NO_LORA else lora)
        resolution = resolution_of(generator, options.resolution)
        asked = asked or questions(options, resolution, judge)
        captions = asked.captions
        pictures = generate_pictures(
            generator, captions, options.seed, resolution, options.batch_size
        )
        figures = judge_pictures(pictures, captions, reward, judge, asked.real, first)
        first = first or figures.judge_scores
        rows.setdefault(name, []).append(figures)
        columns.setdefault(name, pictures[:GRID_ROWS])
    grid = torch.stack(list(columns.values()), dim=1)
    enlarge = max(1, GRID_PIXELS // grid.shape[-1])
    save_grid(grid_path(options), grid, captions[:GRID_ROWS], list(columns), enlarge)
    return rows


def grid_path(options: Options) -> Path:
    return Path(options.output).with_suffix(".png")


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    rows = evaluate(options)
    page = format_page(rows, grid_path(options).name)
    print(page)
    figures = {name: [asdict(model) for model in models] for name, models in rows.items()}
    write_text(Path(options.output).with_suffix(".md"), page)
    options.write({"options": asdict(options), "rows": figures})


if __name__ == "__main__":
    main()
