"""Where over the diffusion steps a tuned model denoises better or worse than its base.

    python -m eval.denoising_errors --dataset NAME --split val --names base sft sopo \\
        --model_path save/base/model000004000.pt save/sft/model000000100.pt save/sopo/...

The first checkpoint is the base. For every other one: its denoising error minus the base's (Eq. 17,
L(theta, ref, x_t)) by quarter of the steps, on the clips of the split and on motions that the base
generates for the same captions, always with the same noise. Preference tuning should raise the
second without raising the first.
"""

from utils.start import entry_point

from dataclasses import dataclass

import torch
from tqdm import tqdm

from eval.motion_sets import (
    FiguresFile,
    MotionSet,
    SampledOptions,
    generated_motions,
    load_model,
    open_split,
    real_motions,
)
from model.mdm.generator import MDMGenerator
from model.seam import Samples
from utils.options import option, parse_options
from utils.seeding import torch_generator
from utils.tables import markdown_table

QUARTERS = 4


@dataclass
class Options(FiguresFile, SampledOptions):
    draws: int = option(2, "steps drawn per motion and quarter", minimum=1)


@torch.no_grad()
def quarter_errors(
    generator: MDMGenerator, motions: MotionSet, draws: int, batch_size: int, seed: int
) -> list[float]:
    """Mean denoising error of raw motions by quarter of the diffusion steps.

    Steps and noise depend on the seed alone, so that models can be subtracted from one another.
    """
    rng, steps = torch_generator(seed, "cpu"), generator.levels
    sums = torch.zeros(QUARTERS, dtype=torch.float64)
    for rows in torch.arange(len(motions.lengths)).split(batch_size):
        part = motions.rows(rows)
        encoded = encode(generator, part)
        condition = generator.encode_text(part.captions)
        for quarter in range(QUARTERS):
            low, high = (steps * q // QUARTERS for q in (quarter, quarter + 1))
            for _ in range(draws):
                t = torch.randint(low, high, (len(rows),), generator=rng).to(generator.device)
                noise = torch.randn(encoded.x.shape, generator=rng).to(generator.device)
                errors = generator.error(encoded, t, noise, condition)
                sums[quarter] += errors.double().sum().cpu()
    return (sums / (draws * len(motions.lengths))).tolist()


def encode(generator: MDMGenerator, motions: MotionSet) -> Samples:
    """In the generator's space; no frame is kept that none of the motions has."""
    frames = int(motions.lengths.max())
    raw = Samples(motions.motions[:, :frames], motions.lengths)
    return generator.encode(raw.to(generator.device))


def format_table(errors: dict[str, dict[str, list[float]]]) -> str:
    """Rows: the base's errors, then the differences of the others, clips before own motions."""
    (base, reference), *others = errors.items()
    titles = [f"{kind} q{q + 1}" for kind in reference for q in range(QUARTERS)]
    flat = [value for values in reference.values() for value in values]
    rows = [[base, *(f"{value:.4f}" for value in flat)]]
    for name, found in others:
        values = [value for kind in reference for value in found[kind]]
        cells = [f"{a - b:+.4f}" for a, b in zip(values, flat, strict=True)]
        rows.append([f"{name} - {base}", *cells])
    return markdown_table(["model", *titles], rows)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    data = open_split(options)
    real = real_motions(data, options.batch_size)
    base = load_model(options.model_path[0], options, data.skeleton)
    kinds = {"clips": real, "generated": generated_motions(base, real, options, "base")}
    errors: dict[str, dict[str, list[float]]] = {}
    pairs = list(zip(options.model_names(), options.model_path, strict=True))
    for name, path in tqdm(pairs, desc="models", unit="model"):
        generator = load_model(path, options, data.skeleton)
        errors[name] = {
            kind: quarter_errors(
                generator, motions, options.draws, options.batch_size, options.seed
            )
            for kind, motions in kinds.items()
        }
    print(f"{options.dataset}, {options.split} split, {len(real.captions)} captions")
    print(format_table(errors))
    options.write({"errors": errors, "options": vars(options)})


if __name__ == "__main__":
    main()
