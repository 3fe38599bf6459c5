"""Direct reward back-propagation, the alternative to preference pairs: DRaFT, ReFL, EasyTune.

    python -m train.train_reward_backprop --save_dir save/draft --dataset humanml --method draft \\
        --backprop_steps 1
    python -m train.train_reward_backprop --save_dir save/easytune --dataset humanml \\
        --method easytune --backprop_steps 10 --warmup_steps 100

train/reward_backprop/rollout.py says what each method differentiates. One step of the loop is one
optimiser step, of which easytune makes K with a batch. Nothing but the reward holds the model:
judge it by something else (docs/method.md).
"""

from utils.start import entry_point

from dataclasses import replace

import torch
from accelerate import PartialState

from data_loaders.skeleton import Skeleton
from model.families import load_generator
from model.momask.generator import MoMaskGenerator
from rewards.load import load_reward
from rewards.seam import differentiable
from train.data import open_splits
from train.fingerprints import fingerprints
from train.inspection import inspector
from train.loop import Trainer, start_run
from train.reward_backprop.options import BackpropOptions
from train.reward_backprop.task import DiffusionGenerator, RewardBackpropTask
from utils.errors import UserError
from utils.options import parse_options


def load_policy(
    options: BackpropOptions,
    skeleton: Skeleton,
    device: torch.device,
    autocast: torch.dtype | None,
) -> DiffusionGenerator:
    """Raises UserError for a model that cannot be differentiated so, or lacks the steps."""
    policy = load_generator(
        options.model_path,
        device,
        data_dir=options.data_dir,
        text_encoder_path=options.text_encoder_path,
        autocast=autocast,
        guidance=options.guidance_param,
        skeleton=skeleton,
    )
    if isinstance(policy, MoMaskGenerator):
        raise UserError(
            f"--model_path {options.model_path} is a MoMask: it draws tokens, and a draw has no "
            "gradient for the reward to go through; tune it with python -m train.train_sopo"
        )
    if options.sampling_steps > policy.levels:
        raise UserError(
            f"--sampling_steps {options.sampling_steps} exceeds the {policy.levels} diffusion "
            "steps of this model; lower it"
        )
    return replace(policy, sampler=options.sampler)


@entry_point
def main() -> None:
    options = parse_options(BackpropOptions, description=__doc__)
    inspect = inspector(options)
    accelerator = start_run(options)
    if options.method == "easytune" and PartialState().num_processes > 1:
        raise UserError(
            "--method easytune carries a half-sampled batch from step to step, which is saved for "
            "one process only; start one process"
        )
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    data, val_data = open_splits(options)
    policy = load_policy(options, data.skeleton, accelerator.device, dtype)
    reward = differentiable(load_reward(options, accelerator.device, data, val_data))
    task = RewardBackpropTask(options, policy, reward, data, val_data)
    inputs = fingerprints(data, val_data, reward=reward)
    Trainer(task, options, accelerator, inspect, inputs=inputs).run()


if __name__ == "__main__":
    main()
