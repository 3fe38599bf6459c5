"""SoPo and the methods it is compared with: preference tuning of a text-to-motion model.

    python -m train.train_sopo --save_dir save/sopo_experiment --dataset humanml
    python -m train.train_sopo --save_dir save/sopo --dataset NAME --tau_quantile 0.25 \\
        --model_path save/base/model000600000.pt --reward_path save/reward

    python -m train.train_sopo --lora_rank 16 ...   adapters alone are trained, through peft
    python -m train.train_sopo --method sft ...      the control: plain denoising, same steps
    python -m train.train_sopo --method offline_dpo --pairs_path FOLDER ...     (also combined_dpo,
        modipo_t and modipo_g; the folder comes from python -m prepare.preference_pairs)

    python -m train.train_sopo --model_path save/momask/base --guidance_param 4 ...     MoMask

train/preference/methods.py lists the methods, train/preference/algorithm.py is Algorithm 1 of the
paper, and docs/method.md lists every choice that the paper leaves open.
"""

from utils.start import entry_point

from dataclasses import dataclass

import torch

from data_loaders.humanml import MotionBatch, MotionDataset
from model.compiled import CompileOptions
from model.families import load_generator
from model.lora import LoraOptions, add_lora
from model.seam import Generator, Samples
from rewards.load import RewardOptions, load_reward
from rewards.seam import Reward
from train.data import open_splits, steps_per_epoch
from train.fingerprints import fingerprints
from train.inspection import inspector
from train.loop import Trainer, start_run
from train.preference.fixed_pairs import PairStore
from train.preference.methods import METHODS
from train.preference.pairs import Key
from train.preference_task import AlgorithmOptions, AlgorithmTask, report_probe
from train.token_preference import check_token_pairs, with_token_options
from train.tuning import MotionTuning, TuningOptions, samples_of
from utils.errors import UserError
from utils.options import option, parse_options


@dataclass
class Options(AlgorithmOptions, RewardOptions, LoraOptions, CompileOptions, TuningOptions):
    resume_checkpoint: str = option("", "upstream's name of --model_path", free="resume")

    def validate(self) -> None:
        AlgorithmOptions.validate(self)
        RewardOptions.validate(self)
        self.model_path = self.resume_checkpoint or self.model_path


class PreferenceTask(MotionTuning, AlgorithmTask[MotionBatch]):
    """Algorithm 1 on the clips of a dataset; `store` holds the fixed pairs."""

    def __init__(
        self,
        options: Options,
        policy: Generator,
        reward: Reward,
        data: MotionDataset,
        val_data: MotionDataset,
        store: PairStore | None = None,
    ) -> None:
        super().__init__(options, policy, reward, store)
        self.data, self.val_data = data, val_data

    def samples_of(self, batch: MotionBatch) -> tuple[Samples, list[Key]]:
        return samples_of(batch.to(self.policy.device))


def open_pairs(options: Options) -> PairStore:
    """The fixed pairs. Raises UserError when another reward ranked them than the method names."""
    store = PairStore(options.pairs_path)
    rewards = list(store.index.options.get("reward", []))
    for pairing in METHODS[options.method]:
        if pairing.ranked_by and rewards != [pairing.ranked_by]:
            raise UserError(
                f"--method {options.method} needs pairs ranked by --reward {pairing.ranked_by}; "
                f"those of {options.pairs_path} were ranked by {' '.join(rewards) or 'none'}"
            )
    return store


def with_pairs(data: MotionDataset, store: PairStore, options: Options) -> MotionDataset:
    """The clips that have pairs. Raises UserError when they do not fill one batch per process."""
    chosen = store.restrict(data)
    if steps_per_epoch(chosen, options) == 0:
        raise UserError(
            f"{options.pairs_path} has pairs for {len(chosen)} clips, which do not fill a batch of "
            f"--batch_size {options.batch_size} per process; generate more or lower it"
        )
    return chosen


def adapt(policy: Generator, options: Options) -> None:
    """Adapters for the policy. Raises UserError for a family that has none, and without peft."""
    if policy.predicts == "tokens":
        raise UserError("--lora_rank is for MDM and latent models; MoMask trains all its weights")
    add_lora(policy.model, options, options.seed)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    inspect = inspector(options)
    accelerator = start_run(options)
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    store = open_pairs(options) if options.pairs_path else None
    data, val_data = open_splits(options)
    policy = load_generator(
        options.model_path,
        accelerator.device,
        data_dir=options.data_dir,
        text_encoder_path=options.text_encoder_path,
        autocast=dtype,
        compiled=options.compile,
        sampler=options.sampler,
        guidance=options.guidance_param,
        skeleton=data.skeleton,
    )
    policy = with_token_options(policy, options)
    if options.lora_rank:
        adapt(policy, options)
    reward = load_reward(options, accelerator.device, data, val_data)
    if store is not None:
        store.check(data, policy.skeleton)
        check_token_pairs(policy, store)
        data = with_pairs(data, store, options)
    task = PreferenceTask(options, policy, reward, data, val_data, store)
    if task.gated:
        rewards = task.probe()
        if accelerator.is_main_process:
            report_probe(rewards, task.algorithm.threshold.value())
    inputs = fingerprints(data, val_data, reward=reward)
    Trainer(task, options, accelerator, inspect, inputs=inputs).run()


if __name__ == "__main__":
    main()
