"""SoPo and the methods it is compared with on a text-to-image diffusion model, with LoRA.

    python -m train.train_sopo_image --save_dir save/shapes_sopo --config configs/images/sopo.yaml
    python -m train.train_sopo_image --save_dir save/sd15_sopo --data_dir PICTURES \\
        --model_path stable-diffusion-v1-5/stable-diffusion-v1-5 --reward hpsv2 \\
        --reward_path HPS_v2.1_compressed.pt --candidate_steps 16
    accelerate launch -m train.train_sopo_image ...     one process per GPU

    python -m train.train_sopo_image --method sft ...   the control: plain denoising, same steps
    python -m train.train_sopo_image --method offline_dpo --data_dir PICKAPIC ...     pairs of the
        data; those of python -m prepare.image_pairs by --pairs_path

The algorithm is that of train.train_sopo; only samples, model and reward are others.
docs/images.md says what the options mean for each model.
"""

from utils.start import entry_point

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from data_loaders.images.dataset import PictureDataset, PictureOptions, open_pictures
from data_loaders.images.layouts import Row, has_split
from model.image.generator import ImageGenerator
from model.image.load import (
    ImageModelOptions,
    load_image_generator,
    resolution_of,
    with_new_lora,
)
from model.image.lora import DenoiserLoraOptions
from model.seam import Samples
from prepare.shape_world.oracle import facts_of, mean_by_kind
from rewards.image import ImageRewardOptions, embeds, load_image_reward
from rewards.seam import Reward
from train.fingerprints import fingerprints
from train.image_data import (
    PictureEpochs,
    PosteriorCache,
    ValPicturesOptions,
    check_pictures,
)
from train.image_pairs import PicturePairs
from train.loop import Trainer, start_run
from train.preference.methods import needs_fixed_pairs
from train.preference.pairs import Key
from train.preference_task import AlgorithmOptions, AlgorithmTask, report_probe
from train.task import LoopOptions, options_to_args
from utils.errors import UserError
from utils.options import option, parse_options, with_default


@dataclass
class Options(
    AlgorithmOptions,
    ImageRewardOptions,
    ImageModelOptions,
    DenoiserLoraOptions,
    ValPicturesOptions,
    PictureOptions,
    LoopOptions,
):
    keep_text_encoders: bool = option(
        False, "encode captions when they are met, instead of all before the first step"
    )
    gradient_checkpointing: bool = option(
        False, "compute activations twice instead of keeping them", free="resume"
    )
    batch_size: int = with_default(16, "pictures per step and process")
    num_steps: int = with_default(1000)
    lr: float = with_default(1e-4)
    lr_schedule: str = with_default("cosine")
    grad_clip: float = with_default(1.0)
    val_interval: int = with_default(100)
    save_interval: int = with_default(500)
    num_candidates: int | None = with_default(None, "K pictures generated per caption; none = 4")
    candidate_sampler: str = with_default("pipeline", choices=("pipeline",))
    candidate_steps: int | None = with_default(None, "their denoising steps; none = the family's")
    guidance_param: float | None = with_default(None, "their guidance scale; none = the family's")
    candidate_start: float = with_default(1.0, "pictures start from noise alone", minimum=1)
    tau: float | None = with_default(
        None,
        "a candidate is used below this reward, on the reward's own scale; none = by quantile",
        minimum=None,
        maximum=None,
    )
    tau_quantile: float | None = with_default(
        None, "set tau to this quantile of the recent worst-of-K rewards; none = 0.5 without --tau"
    )
    loser_min_t: float = with_default(
        0.0, "leave the unpreferred term out below this noise: t / T, or sigma in flows"
    )

    def validate(self) -> None:
        if self.tau is not None and self.tau_quantile is not None:
            raise UserError("--tau and --tau_quantile exclude each other; give one")
        if self.tau is None and self.tau_quantile is None:
            self.tau_quantile = 0.5
        if needs_fixed_pairs(self.method):
            self.pairs_path = self.pairs_path or self.data_dir
        AlgorithmOptions.validate(self)
        ImageRewardOptions.validate(self)


class ImagePreferenceTask(PictureEpochs, AlgorithmTask[list[Row]]):
    """Algorithm 1 on the pictures of a dataset; `store` holds the fixed pairs."""

    def __init__(
        self,
        options: Options,
        policy: ImageGenerator,
        reward: Reward,
        data: PictureDataset,
        val_data: PictureDataset,
        store: PicturePairs | None = None,
    ) -> None:
        share = policy.noising.level_share(options.loser_min_t)
        super().__init__(replace(options, loser_min_t=share), policy, reward, store)
        assert policy.adapters is not None
        self.options = options  # as they were given, for args.json
        self.generator, self.data, self.val_data = policy, data, val_data
        self.module: nn.Module = policy.adapters
        self.posteriors = PosteriorCache(policy.space, data, policy.device)
        self.lost_weights = self.leave_out_weights()

    def leave_out_weights(self) -> bool:
        """beta_w = beta where the reward cannot say how alike two pictures are; did that happen?"""
        if self.options.similarity_space == "features" or embeds(self.reward):
            return False
        weighted = [source for source in self.algorithm.sources if source.pairing.weighted]
        for source in weighted:
            source.pairing = replace(source.pairing, weighted=False)
        return bool(weighted)

    def samples_of(self, batch: list[Row]) -> tuple[Samples, list[Key]]:
        return self.posteriors(batch), [Key(row.key, row.caption) for row in batch]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean reward of pictures generated for the first val captions, from one fixed noise; and,
        where the oracle of the shape world knows them all, the share of facts that hold."""
        policy, size = self.generator, self.data.resolution
        rng = torch.Generator(policy.device).manual_seed(self.options.seed)
        captions = [row.caption for row in self.val_data.rows[: self.options.val_pictures]]
        pictures, scores = [], []
        for start in range(0, len(captions), self.options.batch_size):
            part = captions[start : start + self.options.batch_size]
            like = policy.blank(len(part), size, size)
            raw = policy.decode(policy.sample(policy.encode_text(part), like, rng))
            scores.append(self.reward.score(raw, part))
            pictures.append(raw.x.cpu())
        reward = float(torch.cat(scores).mean())
        facts = facts_of(captions, torch.cat(pictures))
        measured = {"facts": mean_by_kind(facts)["all"]} if facts else {}
        return {"score": -reward, "reward": reward} | measured

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        return self.policy.save(save_dir, step, average, options_to_args(self.options))


def open_data(options: Options, resolution: int) -> tuple[PictureDataset, PictureDataset]:
    """Train and val pictures; data without a val split are validated on captions of the former."""
    data = open_pictures(options, "train", resolution)
    if not has_split(Path(options.data_dir), "validation"):
        return data, data
    return data, open_pictures(options, "validation", resolution)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    accelerator = start_run(options)
    device = accelerator.device
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    policy = load_image_generator(
        options,
        device,
        dtype,
        steps=options.candidate_steps or 0,
        guidance=options.guidance_param,
    )
    policy = with_new_lora(policy, options, options.seed, options.gradient_checkpointing)
    data, val_data = open_data(options, resolution_of(policy, options.resolution))
    reward, store = load_image_reward(options, device), None
    if options.pairs_path:
        path = options.pairs_path
        store = PicturePairs.open(options, path, data.resolution, reward, device)
        data = store.restrict(data)
    check_pictures(data, options)
    captions = [*data.captions(), *val_data.captions()]
    if not options.keep_text_encoders:
        policy.prompts.prepare(captions, drop_encoders=True)
    task = ImagePreferenceTask(options, policy, reward, data, val_data, store)
    if accelerator.is_main_process and task.lost_weights:
        print("the reward has no embedding of pictures for S(x_w): beta_w = beta")
    if task.gated:
        rewards = task.probe()
        if accelerator.is_main_process:
            report_probe(rewards, task.algorithm.threshold.value(), "pictures")
    Trainer(task, options, accelerator, inputs=fingerprints(reward=reward)).run()


if __name__ == "__main__":
    main()
