"""Export a checkpoint of MDM or MLD as one .safetensors file with its arguments and statistics.

    python -m model.export --model_path save/my_model/model000600000.pt
    python -m model.export --model_path ... --output my_model.safetensors --use_ema false

The file works wherever a --model_path is asked for; it needs no args.json and no dataset beside it,
and cannot hold code.
"""

from utils.start import entry_point

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data_loaders.humanml import DataDirOptions
from data_loaders.normalizer import Statistics
from model.checkpoint_files import ModelPathOptions, load_stats, read_model_args
from model.families import is_latent
from model.latent.assembly import read_vae, stored_args
from model.latent.checkpoints import AVERAGE, load_denoiser, prefixed
from model.latent.checkpoints import FAMILY as LATENT
from model.mdm.checkpoints import config_from_args, load_weights
from model.mdm.network import MDM
from model.single_file import SUFFIX, is_single_file, write_single_file
from utils.errors import UserError
from utils.options import option, parse_options, with_default
from utils.outputs import OverwriteOptions
from utils.unpickle import load_tensors_only


@dataclass
class Options(ModelPathOptions, DataDirOptions, OverwriteOptions):
    data_dir: str = with_default(
        "", "dataset folder with Mean.npy and Std.npy, for upstream checkpoints"
    )
    output: str = option("", "file to write; none = beside the checkpoint, as .safetensors")
    use_ema: bool | None = option(
        None, "averaged instead of last weights; none = averaged where args.json says use_ema"
    )


@dataclass(frozen=True)
class Content:
    """What an exported file holds."""

    state: Mapping[str, Tensor]
    args: dict[str, Any]
    stats: Statistics


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
    content = (latent_content if is_latent(source) else mdm_content)(source, options)
    write_single_file(output, content.state, content.args, content.stats)
    return output


def mdm_content(source: Path, options: Options) -> Content:
    args = read_model_args(source)
    check_average(source, "model_avg", options)
    use_ema = bool(args.get("use_ema", False)) if options.use_ema is None else options.use_ema
    stats = load_stats(source, args, options.data_dir)
    model = MDM(config_from_args(args), stats.feature_dim)
    load_weights(model, source, use_ema)
    return Content(model.state_dict(), args, stats)


def latent_content(source: Path, options: Options) -> Content:
    """Both networks; the averaged denoiser where there is one, unless told otherwise."""
    check_average(source, AVERAGE, options)
    found = read_vae(source, options.data_dir, use_ema=options.use_ema is not False)
    networks = {"vae": found.vae, "denoiser": load_denoiser(found.weights, found.settings)}
    args = {**stored_args(source), **asdict(found.settings), "family": LATENT}
    return Content(prefixed(networks), args, found.stats)


def check_average(source: Path, key: str, options: Options) -> None:
    """Raises UserError where averaged weights are asked for and missing."""
    if options.use_ema and (is_single_file(source) or key not in load_tensors_only(source)):
        raise UserError(f"--use_ema: {source} holds no averaged weights")


@entry_point
def main() -> None:
    print(f"exported: {export(parse_options(Options, description=__doc__))}")


if __name__ == "__main__":
    main()
