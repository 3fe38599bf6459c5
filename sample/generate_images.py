"""Generate pictures for prompts with a diffusers pipeline, with or without LoRA.

    python -m sample.generate_images --model_path save/shapes_base/pipeline \\
        --lora_path save/shapes_sopo --prompt "a red circle left of a blue square"
    python -m sample.generate_images --input_text evaluation_metadata.jsonl --num_samples 4 ...

Seeds give the same noise to every model. The output folder has GenEval's layout, which its
evaluation reads (00000/samples/0000.png, 00000/metadata.jsonl), and grid.png, a row per prompt.
"""

from utils.start import entry_point

from dataclasses import dataclass
from pathlib import Path

import torch

from data_loaders.images.dataset import ResolutionOptions
from model.image.load import ImageGeneratorOptions, resolution_of, with_lora
from sample.pictures import Prompt, generate_pictures, read_prompts, save_grid, write_geneval
from utils.devices import pick_device
from utils.errors import UserError
from utils.files import check_output_dir
from utils.options import option, parse_options, with_default
from utils.outputs import OutputDirOptions

GRID_ROWS, GRID_PIXELS = 16, 128  # prompts in the grid; small pictures are drawn that large


@dataclass
class Options(ImageGeneratorOptions, ResolutionOptions, OutputDirOptions):
    lora_path: str = option("", "LoRA file or run folder; none = the model as it is")
    prompt: list[str] = option([], "captions to generate for")
    input_text: str = option("", "file of prompts: .txt, GenEval's .jsonl, or HPSv2's .json")
    num_samples: int = option(4, "pictures per prompt, from consecutive seeds", minimum=1)
    batch_size: int = with_default(8)
    output_dir: str = with_default("save/pictures", "folder of the pictures")

    def validate(self) -> None:
        if bool(self.prompt) == bool(self.input_text):
            raise UserError("give either --prompt or --input_text")


def generate(options: Options) -> Path:
    """Write the pictures; returns their folder."""
    prompts = [Prompt(text, {}) for text in options.prompt]
    if options.input_text:
        prompts = read_prompts(Path(options.input_text))
    device = pick_device(options.device)
    folder = check_output_dir(options.output_dir, options.overwrite, option="--output_dir")
    dtype = torch.bfloat16 if device.type == "cuda" else None
    generator = with_lora(options.load_generator(device, dtype), options.lora_path)
    resolution = resolution_of(generator, options.resolution)
    captions = [prompt.text for prompt in prompts]
    seeds = range(options.seed, options.seed + options.num_samples)
    pictures = torch.stack(
        [generate_pictures(generator, captions, s, resolution, options.batch_size) for s in seeds],
        dim=1,
    )
    write_geneval(folder, prompts, pictures)
    shown, enlarge = pictures[:GRID_ROWS], max(1, GRID_PIXELS // resolution)
    save_grid(folder / "grid.png", shown, captions[:GRID_ROWS], enlarge=enlarge)
    return folder


@entry_point
def main() -> None:
    print(f"pictures: {generate(parse_options(Options, description=__doc__))}")


if __name__ == "__main__":
    main()
