"""Generate fixed pairs of pictures: the best and the worst of K by reward, for every caption.

    python -m prepare.image_pairs --data_dir dataset/shapes --out save/shapes_pairs \\
        --model_path save/shapes_base/pipeline --reward clip --reward_path save/shapes_reward/clip
    python -m train.train_sopo_image --method offline_dpo --pairs_path save/shapes_pairs ...

The folder is an image folder whose rows name both: file_name is the best, loser the worst, and key
the picture of the dataset that they belong to.
"""

from utils.start import entry_point

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from data_loaders.images.dataset import PictureOptions, open_pictures
from data_loaders.images.layouts import METADATA
from model.image.load import ImageGeneratorOptions, resolution_of
from rewards.image import ImageRewardOptions, load_image_reward
from sample.pictures import save_png
from train.preference.options import PairedOptions
from train.preference.pairs import CandidateSampler
from utils.devices import pick_device
from utils.files import check_output_dir, write_json, write_text
from utils.options import fixed_options, parse_options, with_default
from utils.outputs import OutOptions


@dataclass
class Options(ImageRewardOptions, ImageGeneratorOptions, PictureOptions, PairedOptions, OutOptions):
    batch_size: int = with_default(16, "captions at once")
    out: str = with_default("save/image_pairs")


def generate(options: Options) -> int:
    """Write the pairs, the list of them last; returns their number."""
    device = pick_device(options.device)
    folder = check_output_dir(options.out, options.overwrite, option="--out")
    generator = options.load_generator(device)
    size = resolution_of(generator, options.resolution)
    data = open_pictures(options, "train", size)
    reward = load_image_reward(options, device)
    sampler = CandidateSampler(generator, reward, options.num_candidates)
    rng = torch.Generator(device).manual_seed(options.seed)
    lines = []
    for start in tqdm(range(0, len(data), options.batch_size), desc="pairs", unit="batch"):
        rows = data.rows[start : start + options.batch_size]
        captions = [row.caption for row in rows]
        like = generator.blank(len(rows), size, size)
        drawn = sampler(like, captions, generator.encode_text(captions), rng)
        chosen = {
            "best": drawn.raw[drawn.rows(drawn.rewards.argmax(dim=1))].x,
            "worst": drawn.raw[drawn.rows(drawn.rewards.argmin(dim=1))].x,
        }
        for index, row in enumerate(rows):
            names = {kind: f"{start + index:06d}_{kind}.png" for kind in chosen}
            for kind, name in names.items():
                save_png(folder / name, chosen[kind][index])
            rewards = drawn.rewards[index].tolist()
            record = {"file_name": names["best"], "loser": names["worst"], "text": row.caption}
            lines.append(json.dumps(record | {"key": row.key, "rewards": rewards}))
    write_json(folder / "dataset.json", fixed_options(options))
    write_text(folder / METADATA, "\n".join(lines) + "\n")
    return len(lines)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    print(f"wrote {generate(options)} pairs to {Path(options.out)}")


if __name__ == "__main__":
    main()
