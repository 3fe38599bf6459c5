"""Train MoMask: an RVQ that turns motions into tokens, and what writes tokens for a caption.

    python -m train.train_momask --stage rvq --save_dir save/momask/rvq --dataset humanml
    python -m train.train_momask --stage base --save_dir save/momask/base --dataset humanml
    python -m train.train_momask --stage residual --save_dir save/momask/tres --dataset humanml
    python -m train.train_momask --stage lengths --save_dir save/momask/length_estimator ...
    python -m sample.generate --model_path save/momask/base --text_prompt "a person walks"

The folders lie side by side, as the published ones do; --vq_name tells the RVQ by its folder's
name. The stages after the first only read the RVQ, so they can run at the same time; the length
estimator is needed where no length is given. configs/momask holds the published settings, and
small ones for the embedded data.
"""

from utils.start import entry_point

from accelerate import Accelerator

from data_loaders.humanml import MotionDataset, open_dataset
from model.momask.checkpoints import load_tokens, momask_text_encoder
from model.momask.token_space import TokenSpace
from train.data import open_splits
from train.fingerprints import fingerprints
from train.loop import Trainer, start_run
from train.momask_options import MoMaskOptions
from train.momask_tasks import TASKS, RVQTask, Stage
from utils.errors import UserError
from utils.options import parse_options

Options = MoMaskOptions  # as every script calls them


def open_tokens(
    options: MoMaskOptions, data: MotionDataset, accelerator: Accelerator
) -> TokenSpace:
    """The finished RVQ, frozen. Raises UserError when it is missing or of other motions."""
    tokens = load_tokens(options.vq_folder, accelerator.device)
    if tokens.skeleton != data.skeleton:
        raise UserError(
            f"{tokens.folder} encodes {tokens.skeleton.name} motions of "
            f"{tokens.skeleton.feature_dim} features, the dataset holds {data.skeleton.name} "
            f"motions of {data.skeleton.feature_dim}; name another --vq_name"
        )
    tokens.rvq.requires_grad_(False)
    return tokens


def open_task(options: MoMaskOptions, accelerator: Accelerator) -> Stage:
    """The network of the stage on its data."""
    device = accelerator.device
    if options.stage == "rvq":
        name, folder = options.dataset, options.data_dir
        data = open_dataset(name, "train", folder, rebuild_cache=options.rebuild_cache)
        return RVQTask(options, data, open_dataset(name, "val", folder), device)
    data, val_data = open_splits(options)
    tokens = open_tokens(options, data, accelerator)
    encoder = momask_text_encoder(options.text_encoder_type, options.text_encoder_path, device)
    return TASKS[options.stage](options, data, val_data, device, tokens, encoder)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    accelerator = start_run(options)
    if options.stage == "rvq" and accelerator.num_processes > 1:
        raise UserError(
            f"--stage rvq in {accelerator.num_processes} processes: each would move codebooks of "
            "its own by its share of the motions; train the RVQ in one process"
        )
    task = open_task(options, accelerator)
    inputs = fingerprints(task.data, task.val_data)
    Trainer(task, options, accelerator, inputs=inputs).run()


if __name__ == "__main__":
    main()
