"""Export a checkpoint of MDM as one .safetensors file with its arguments and statistics.

    python -m model.export --model_path save/my_model/model000600000.pt
    python -m model.export --model_path ... --output my_model.safetensors --use_ema false

The file works wherever a --model_path is asked for; it needs no args.json and no dataset beside it,
and cannot hold code.
"""

from utils.start import entry_point

from dataclasses import dataclass
from pathlib import Path

from model.checkpoint_files import load_stats, read_model_args
from model.mdm.checkpoints import config_from_args, load_weights
from model.mdm.network import MDM
from model.single_file import SUFFIX, is_single_file, write_single_file
from utils.errors import UserError
from utils.files import load_tensors
from utils.options import option, parse_options


@dataclass
class Options:
    model_path: str = option("", "checkpoint, e.g. save/NAME/model000600000.pt", required=True)
    output: str = option("", "file to write; none = beside the checkpoint, as .safetensors")
    use_ema: bool | None = option(
        None, "averaged instead of last weights; none = averaged where args.json says use_ema"
    )
    data_dir: str = option("", "dataset folder with Mean.npy and Std.npy, for upstream checkpoints")
    overwrite: bool = option(False, "replace an existing file")


def export(options: Options) -> Path:
    """Write the file and return its path.

    The checkpoint must fit its arguments exactly. Raises UserError otherwise, and when the output
    exists, is of another kind, or averaged weights are asked for that the checkpoint lacks.
    """
    source = Path(options.model_path)
    output = Path(options.output) if options.output else source.with_suffix(SUFFIX)
    if not is_single_file(output):
        raise UserError(f"--output {output} must end in {SUFFIX}")
    if output.exists() and not options.overwrite:
        raise UserError(f"--output {output} exists already; add --overwrite to replace it")
    args = read_model_args(source)
    if options.use_ema and (is_single_file(source) or "model_avg" not in load_tensors(source)):
        raise UserError(f"--use_ema: {source} holds no averaged weights")
    use_ema = bool(args.get("use_ema", False)) if options.use_ema is None else options.use_ema
    stats = load_stats(source, args, options.data_dir)
    model = MDM(config_from_args(args), stats.feature_dim)
    load_weights(model, source, use_ema)
    write_single_file(output, model.state_dict(), args, stats)
    return output


@entry_point
def main() -> None:
    print(f"exported: {export(parse_options(Options, description=__doc__))}")


if __name__ == "__main__":
    main()
