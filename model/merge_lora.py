"""Merge adapters of train.train_sopo --lora_rank into the base model that they were trained on.

    python -m model.merge_lora --model_path save/base/model000600000.pt \\
        --lora_path save/sopo/lora.safetensors --output_dir save/merged

The run's own checkpoints are merged already; this is for adapters that were handed on alone.
"""

from utils.start import entry_point

from dataclasses import dataclass
from pathlib import Path

from data_loaders.humanml import DataDirOptions
from model.checkpoint_files import (
    LIGHTNING,
    ModelPathOptions,
    find_checkpoint,
    read_model_args,
    step_of,
)
from model.families import load_generator
from model.lora import load_lora
from model.text.encoders import TextEncoderOptions
from utils.errors import UserError
from utils.options import option, parse_options, with_default
from utils.outputs import OutputDirOptions


@dataclass
class Options(ModelPathOptions, DataDirOptions, TextEncoderOptions, OutputDirOptions):
    model_path: str = with_default("", "base checkpoint of the adapters")
    lora_path: str = option("", "their file lora.safetensors", required=True)
    output_dir: str = with_default("", "folder of the merged checkpoint", required=True)


def merge(options: Options) -> Path:
    """Write the merged checkpoint and return its path.

    Raises UserError when the adapters do not fit the base.
    """
    base = find_checkpoint(options.model_path)
    generator = load_generator(
        base, data_dir=options.data_dir, text_encoder_path=options.text_encoder_path
    )
    if generator.predicts == "tokens":
        raise UserError(f"{base} is of MoMask, which has no adapters")
    load_lora(Path(options.lora_path), generator.model)
    folder = options.new_folder()
    step = 0 if base.suffix == LIGHTNING else step_of(base)
    return generator.save(folder, step, None, read_model_args(base))


@entry_point
def main() -> None:
    print(f"merged: {merge(parse_options(Options, description=__doc__))}")


if __name__ == "__main__":
    main()
