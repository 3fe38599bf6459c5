"""What tuning a generator by a reward shares, whatever the method."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch, MotionDataset
from data_loaders.vocabulary import write_words
from model.checkpoint_files import ModelPathOptions
from model.seam import Generator, Samples
from rewards.seam import Reward
from train.data import MotionEpochs, fixed_batches
from train.inspection import InspectionOptions
from train.preference.pairs import Key
from train.task import options_to_args
from utils.options import option, with_default


@dataclass
class TuningOptions(ModelPathOptions, InspectionOptions):
    model_path: str = with_default(
        "save/humanml_enc_512_50steps/model000750000.pt", "base checkpoint modelNNNNNNNNN.pt"
    )
    val_motions: int = option(128, "val captions generated per validation", minimum=8)
    lr: float = with_default(1e-5)
    lr_schedule: str = with_default("cosine")
    num_steps: int = with_default(1000)
    save_interval: int = with_default(500)
    val_interval: int = with_default(100)


def samples_of(batch: MotionBatch) -> tuple[Samples, list[Key]]:
    """The raw motions of a batch, and what each of them is."""
    keys = [Key(clip, text) for clip, text in zip(batch.names, batch.captions, strict=True)]
    return Samples(batch.motion, batch.lengths), keys


@torch.no_grad()
def validation_reward(
    policy: Generator,
    reward: Reward,
    data: MotionDataset,
    *,
    batch_size: int,
    count: int,
    seed: int,
) -> dict[str, float]:
    """Mean reward of motions generated for the first `count` captions, with fixed noise, and the
    `score` that falls as it rises."""
    rng = torch.Generator(policy.device).manual_seed(seed)
    rewards: list[Tensor] = []
    for batch in fixed_batches(data, batch_size):
        raw, _ = samples_of(batch.to(policy.device))
        condition = policy.encode_text(batch.captions)
        generated = policy.sample(condition, policy.encode(raw, rng), rng)
        rewards.append(reward.score(policy.decode(generated), batch.captions))
        if sum(map(len, rewards)) >= count:
            break
    mean = float(torch.cat(rewards).mean())
    return {"score": 1 - mean, "reward": mean}


class MotionTuning(MotionEpochs):
    """Data, validation and checkpoints of tuning `policy` on the captions of a dataset."""

    policy: Generator
    reward: Reward
    val_data: MotionDataset

    @property
    def padded_frames(self) -> int | None:
        return self.policy.padded_frames

    def validate(self) -> dict[str, float]:
        """Mean reward of motions generated for the first val captions, from one fixed noise."""
        options = self.options
        return validation_reward(
            self.policy,
            self.reward,
            self.val_data,
            batch_size=options.batch_size,
            count=options.val_motions,
            seed=options.seed,
        )

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        write_words(save_dir, self.data.captions())
        return self.policy.save(save_dir, step, average, options_to_args(self.options))
