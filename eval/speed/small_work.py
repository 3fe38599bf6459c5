"""A few training steps and a few motions of a small network: work that its threads share in pieces.

`eval.speed.waiting` runs it in processes of their own.
"""

import json

import torch

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import HUMANML
from eval.speed.timing import seconds_of
from eval.speed.workload import QUICK, SMALL, Sizes
from model.mdm.generator import MDMGenerator, build_generator
from model.seam import Samples
from utils.seeding import torch_generator

STEPS, MOTIONS = 10, 8
CAPTION = "a person walks forward and waves"


def report(quick: bool = False) -> None:
    """Print the seconds of `STEPS` steps and of `MOTIONS` motions as JSON."""
    sizes = QUICK if quick else SMALL
    torch.manual_seed(0)
    width = HUMANML.feature_dim
    stats = Statistics("dataset_stats", torch.zeros(width), torch.ones(width))
    device = torch.device("cpu")
    generator = build_generator(sizes.network, stats, HUMANML, device)
    train(generator, sizes, steps=1)  # whatever is only done once
    works = (lambda: train(generator, sizes, STEPS), lambda: sample(generator))
    print(json.dumps([seconds_of(work, device) for work in works]))


def train(generator: MDMGenerator, sizes: Sizes, steps: int) -> None:
    """Steps of plain denoising on random motions of 2 to 8 seconds."""
    optimizer, rng = torch.optim.AdamW(generator.model.parameters()), torch_generator(0)
    lengths = torch.linspace(40, 160, sizes.batch).long()
    condition = generator.encode_text([CAPTION] * sizes.batch)
    for _ in range(steps):
        motion, noise = torch.randn(2, sizes.batch, 160, HUMANML.feature_dim, generator=rng)
        clips = generator.encode(Samples(motion, lengths))
        t = torch.randint(sizes.network.diffusion_steps, (sizes.batch,), generator=rng)
        loss = generator.error(clips, t, noise, condition).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def sample(generator: MDMGenerator) -> None:
    lengths = torch.linspace(40, 160, MOTIONS).long()
    condition = generator.encode_text([CAPTION] * MOTIONS)
    generator.draw(condition, lengths, torch_generator(0))
