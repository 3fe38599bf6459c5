"""Train the base motion diffusion model (MDM) from scratch.

    python -m train.train_mdm --save_dir save/my_mdm --dataset humanml --diffusion_steps 50 \\
        --mask_frames --use_ema
    python -m train.train_mdm --save_dir save/mdm_synthetic --config configs/demo/mdm.yaml

The loss is the mean over samples of the masked squared error of the predicted x0 (MDM, Eq. 2).
"""

from utils.start import entry_point

from dataclasses import dataclass

from model.mdm.checkpoints import load_weights
from model.mdm.generator import build_generator
from model.mdm.network import MDMConfig
from train.data import open_splits
from train.denoising import DenoisingTask
from train.fingerprints import fingerprints
from train.inspection import InspectionOptions, inspector
from train.loop import Trainer, start_run
from utils.options import option, parse_options, with_default


@dataclass
class Options(MDMConfig, InspectionOptions):
    """Options of the model (stored in args.json), of the loop, and of the data."""

    resume_checkpoint: str = option("", "start from the weights of this checkpoint", free="resume")
    num_steps: int = with_default(600_000)
    # Options of upstream's command lines that change nothing for these datasets there either
    num_frames: int = option(60, "of datasets of fixed length; unused", minimum=1)
    lambda_rcxyz: float = option(0.0, "loss on joints; undefined for these features", maximum=0)
    lambda_vel: float = option(0.0, "loss on velocities; undefined for these features", maximum=0)
    lambda_fc: float = option(0.0, "loss on foot contacts; undefined for these features", maximum=0)
    context_len: int = option(0, "prefix completion; not implemented", maximum=0)
    pred_len: int = option(0, "prefix completion; not implemented", maximum=0)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    inspect = inspector(options)
    accelerator = start_run(options)
    data, val_data = open_splits(options)
    generator = build_generator(
        options, data.stats, data.skeleton, accelerator.device, options.text_encoder_path
    )
    if options.resume_checkpoint:
        load_weights(generator.model, options.resume_checkpoint)
    task = DenoisingTask(options, options.cond_mask_prob, generator, data, val_data)
    inputs = fingerprints(data, val_data)
    Trainer(task, options, accelerator, inspect, inputs=inputs).run()


if __name__ == "__main__":
    main()
