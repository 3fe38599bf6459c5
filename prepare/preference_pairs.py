"""Generate fixed preference pairs: the best and the worst of K motions of a base model.

    python -m prepare.preference_pairs --dataset humanml --out save/pairs --num_candidates 4 \\
        --model_path save/base/model000600000.pt --reward_path save/reward

For every training caption (or --num_captions of them, drawn at random) the model generates K
motions of the clip's length, the reward ranks them, and best and worst are stored: 2 x frames x
features x 4 bytes per caption. offline_dpo and combined_dpo read the worst, modipo_t (--reward tmr)
and modipo_g (--reward evaluator) both. Every file is written at once or not at all and depends on
the seed and its number alone, so a run that was killed goes on with --resume to the same result.
"""

from utils.start import entry_point

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_loaders.humanml import (
    DatasetOptions,
    Draw,
    Entry,
    MotionDataset,
    collate,
    open_dataset,
    unit_length,
)
from model.checkpoint_files import ModelPathOptions, read_model_args
from model.families import ComputeOptions, load_generator
from model.seam import Samples
from model.text.encoders import TextEncoderOptions
from rewards.load import RewardOptions, load_reward
from train.preference.fixed_pairs import PairIndex, PairKey, PairStore, shard_path, write_shard
from train.preference.options import CandidateOptions
from train.preference.pairs import CandidateSampler
from utils.devices import pick_device
from utils.errors import UserError
from utils.files import prepare_output_dir
from utils.locks import FolderLock
from utils.options import (
    changed_options,
    fixed_options,
    option,
    parse_options,
    with_default,
)
from utils.outputs import OutOptions, ResumeOptions
from utils.seeding import SeedOptions, torch_generator


@dataclass
class Options(
    CandidateOptions,
    RewardOptions,
    DatasetOptions,
    TextEncoderOptions,
    SeedOptions,
    ComputeOptions,
    ModelPathOptions,
    OutOptions,
    ResumeOptions,
):
    model_path: str = with_default("", "checkpoint of the reference model", free="never")
    num_candidates: int = with_default(4, minimum=2)
    num_captions: int = option(0, "training captions, drawn at random; 0 = all", minimum=0)
    batch_size: int = option(64, "captions generated at once, and per file", minimum=1)


def plan(data: MotionDataset, options: Options) -> PairIndex:
    """What is to be generated: clips by length, every distinct caption of each once."""
    keys = [
        PairKey(entry.name, text, unit_length(entry.length, single=True))
        for entry in data.entries
        for text in dict.fromkeys(caption.text for caption in entry.captions)
    ]
    if options.num_captions > len(keys):
        raise UserError(
            f"--num_captions {options.num_captions} exceeds the {len(keys)} captions of the split"
        )
    if options.num_captions:
        rng = np.random.default_rng(options.seed)
        chosen = rng.choice(len(keys), options.num_captions, replace=False)
        keys = [keys[i] for i in sorted(chosen)]
    return PairIndex(options.dataset, data.stats.feature_dim, fixed_options(options), keys)


def claim_folder(index: PairIndex, options: Options) -> Path:
    """The output folder with its index. Raises UserError where it holds pairs of other options."""
    folder = prepare_output_dir(options.out, options.overwrite, options.resume, option="--out")
    if options.resume and (folder / "index.json").is_file():
        found = PairIndex.read(folder)
        changed = changed_options(found.options, options)
        if changed or replace(found, options=index.options) != index:
            raise UserError(
                f"--resume: {folder} was begun with {', '.join(changed) or 'other clips'}; repeat "
                "its options, or name another folder"
            )
        return folder
    for path in folder.glob("pairs_*.safetensors"):  # of an earlier index
        path.unlink()
    index.write(folder)
    return folder


def generate(
    index: PairIndex, data: MotionDataset, candidates: CandidateSampler, folder: Path, seed: int
) -> None:
    """Write the files that are missing."""
    places = {
        (entry.name, caption.text): (entry, number)
        for entry in data.entries
        for number, caption in reversed(list(enumerate(entry.captions)))
    }
    for number, keys in enumerate(tqdm(index.shards, desc="pairs", unit="batch")):
        path = shard_path(folder, number)
        if path.is_file():
            continue
        items: list[tuple[Entry, Draw]] = []
        for key in keys:
            entry, caption = places[key.clip, key.caption]
            items.append((entry, Draw(caption, key.length, 0)))
        policy = candidates.policy
        batch = collate(data, items, policy.padded_frames).to(policy.device)
        rng = torch_generator((seed * 1_000_003 + number) % 2**63, policy.device)
        clips = policy.encode(Samples(batch.motion, batch.lengths), rng)
        drawn = candidates(clips, batch.captions, policy.encode_text(batch.captions), rng)
        if not drawn.raw.x.isfinite().all():
            raise UserError("generated motions hold NaN or infinity: the model has diverged")
        write_shard(path, drawn)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    device = pick_device(options.device)
    read_model_args(options.model_path)
    rebuild = options.rebuild_cache
    data = open_dataset(options.dataset, "train", options.data_dir, rebuild_cache=rebuild)
    reward = load_reward(options, device, data)
    policy = load_generator(
        options.model_path,
        device,
        data_dir=options.data_dir,
        text_encoder_path=options.text_encoder_path,
        autocast=options.autocast,
        compiled=options.compile,
        sampler=options.sampler,
        guidance=options.guidance_param,
        skeleton=data.skeleton,
    )
    candidates = CandidateSampler(policy, reward, options.num_candidates)
    index = plan(data, options)
    with FolderLock(options.out):
        folder = claim_folder(index, options)
        generate(index, data, candidates, folder, options.seed)
    rewards = PairStore(folder).rewards
    best, worst = float(rewards.amax(dim=1).mean()), float(rewards.amin(dim=1).mean())
    print(f"{len(index.keys)} pairs in {folder}: mean reward of best {best:.3f}, worst {worst:.3f}")


if __name__ == "__main__":
    main()
