"""How fast the parts are, each beside the plain way to the same numbers.

    python -m eval.benchmark                      small networks, a few minutes on 4 CPU cores
    python -m eval.benchmark --device cuda --full_size --output FILE.json     sizes of the papers
    torchrun --nproc_per_node 2 -m eval.benchmark --device cpu        also the scaling efficiency
    python -m eval.benchmark --threads            how threads wait, idle and beside other work
    python -m eval.benchmark --pages              how viewer pages open and play in Chromium

Prints a table (median and quartile distance over the repetitions, share of the measured matrix
multiplication peak of the same device and number type, gain over the plain path), then what fewer
denoising steps do to the choice of the worst candidate. Networks are untrained unless --model_path
and --reward_path name trained ones; data are procedural motions. Both paths of an item take turns,
so that a busy machine slows both. --full_size on a CPU takes hours; lower --batch_size and
--num_candidates there and leave out the large items, as in --items denoiser rollout "SoPo step".

The rows of MLD are of MLD* at the sizes of configs/mld/v1_vae.yaml and v1_diffusion.yaml, always
untrained, with the paper's 2 candidates. Large text encoders are not part of any row, on either
path: CLIP and sentence-T5 cannot be had without a download, so that MDM reads the built-in vectors
and MLD one fixed vector of sentence-T5's width.
"""

from utils.start import entry_point

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from data_loaders.humanml import DataDirOptions, open_dataset
from data_loaders.skeleton import HUMANML
from eval.metrics import POOL
from eval.motion_sets import FiguresFile
from eval.speed.few_steps import StepComparison, format_few_steps
from eval.speed.latent import LatentWorkload
from eval.speed.pages import format_pages, measure_pages
from eval.speed.timing import format_rows, matmul_peak, measure_item, seconds_of
from eval.speed.waiting import compare_waiting, format_waiting
from eval.speed.workload import FULL, GUIDANCE, QUICK, SMALL, Sizes, Workload
from model.checkpoint_files import ModelPathOptions
from model.families import load_generator
from model.mdm.generator import MDMGenerator, build_generator
from model.text.encoders import BuiltinEncoder, CachedTextEncoder, TextEncoderOptions
from prepare.procedural import dataset as synthetic
from rewards.tmr import TMRPathOptions, TMRReward
from tmr.model import TMR
from utils.devices import DeviceOptions, pick_device
from utils.errors import UserError
from utils.options import option, parse_options, with_default
from utils.processes import average_gradients
from utils.seeding import seed_everything

MADE_CLIPS = 500  # of procedural motion; more are the same files under further names


@dataclass
class Options(
    FiguresFile,
    ModelPathOptions,
    TMRPathOptions,
    DataDirOptions,
    TextEncoderOptions,
    DeviceOptions,
):
    full_size: bool = option(False, "networks and amounts of the papers")
    quick: bool = option(False, "seconds of work, to try the script")
    repetitions: int = option(3, "timed repetitions, after one that is not counted", minimum=1)
    model_path: str = with_default(
        "", "checkpoint of the generator; none = untrained", required=False
    )
    reward_path: str = with_default("", "run folder of the reward; none = untrained")
    data_dir: str = with_default(
        "", "dataset folder for captions and lengths; none = procedural motion"
    )
    batch_size: int = option(0, "captions per training step; 0 = the size's", minimum=0)
    num_candidates: int = option(0, "candidates per caption; 0 = the size's", minimum=0)
    num_motions: int = option(0, "generated motions; 0 = the size's", minimum=0)
    num_clips: int = option(0, "clips of the start-up; 0 = the size's", minimum=0)
    items: list[str] = option([], "only the rows whose names start like these; none = all")
    few_steps: bool = option(True, "compare samplers with fewer steps")
    threads: bool = option(False, "measure only how the threads of a CPU wait for one another")
    pages: bool = option(False, "measure only how pages of motions open and play in Chromium")

    def validate(self) -> None:
        width = self.sizes().evaluators.embedding
        if self.num_motions and (self.num_motions % POOL or self.num_motions <= width):
            raise UserError(
                f"--num_motions must be a multiple of {POOL}, the pools of the metrics, and more "
                f"than {width}, the dimensions of FID"
            )
        if bool(self.model_path) != bool(self.reward_path):
            raise UserError("give both --model_path and --reward_path, or neither")

    def sizes(self) -> Sizes:
        """The chosen sizes with the amounts that were given."""
        base = QUICK if self.quick else FULL if self.full_size else SMALL
        given = {
            "batch": self.batch_size,
            "candidates": self.num_candidates,
            "motions": self.num_motions,
            "clips": self.num_clips,
        }
        return replace(base, **{name: value for name, value in given.items() if value})


def make_clips(folder: Path, count: int) -> None:
    """A dataset of `count` clips, of which all but the first `MADE_CLIPS` are further names."""
    synthetic.build(synthetic.Options(out=str(folder), num_clips=min(count, MADE_CLIPS)))
    train = (folder / "train.txt").read_text().split()
    further = [f"{name}_{n}" for n in range(count // len(train)) for name in train]
    further = further[: count - min(count, MADE_CLIPS)]
    for name in further:
        source = name.rsplit("_", 1)[0]
        for part, suffix in (("new_joint_vecs", "npy"), ("texts", "txt")):
            os.link(folder / part / f"{source}.{suffix}", folder / part / f"{name}.{suffix}")
    (folder / "train.txt").write_text("\n".join([*train, *further]) + "\n")


def load_networks(
    options: Options, sizes: Sizes, folder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[MDMGenerator, TMRReward]:
    """Trained or, with a fixed seed, untrained ones."""
    autocast = None if dtype == torch.float32 else dtype
    if options.model_path:
        generator = load_generator(
            options.model_path,
            device,
            text_encoder_path=options.text_encoder_path,
            autocast=autocast,
        )
        return generator, TMRReward(TMR.load(options.reward_path, device))
    seed_everything(0)
    data = open_dataset("benchmark", "train", str(folder))
    generator = build_generator(sizes.network, data.stats, HUMANML, device, autocast=autocast)
    stats = data.feature_stats().to(device)
    tmr = TMR(sizes.reward, stats, CachedTextEncoder(BuiltinEncoder())).to(device)
    return generator, TMRReward(tmr)


def pick_compiled(work: Workload, device: torch.device) -> dict[str, float]:
    """On a GPU, sample through torch.compile where that is faster. Returns seconds per call."""
    if device.type != "cuda":
        return {}
    generator, found = work.generator, {}
    for name, compiled in (("eager", False), ("compiled", True)):
        work.use(replace(generator, compiled=compiled))
        call = work.denoiser()
        for _ in range(3):
            call()
        found[name] = statistics.median(seconds_of(call, device) for _ in range(5))
    work.use(replace(generator, compiled=found["compiled"] < found["eager"]))
    return found


def scaling_efficiency(work: Workload, accelerator: Accelerator, repetitions: int) -> float:
    """Time of a step of one process alone over its time when all work, gradients averaged."""

    def median(call: Callable[[], object]) -> float:
        call()
        return statistics.median(seconds_of(call, work.device) for _ in range(repetitions))

    accelerator.wait_for_everyone()
    alone = median(work.fast.sopo_step) if accelerator.is_main_process else 0.0
    accelerator.wait_for_everyone()
    reduce = partial(average_gradients, accelerator)
    return alone / median(lambda: work.fast.sopo_step(reduce))


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def compare_threads(options: Options) -> dict[str, Any]:
    """The ways of waiting, as the content of the JSON file; prints while it goes."""
    found = compare_waiting(options.repetitions, options.quick)
    print(f"\n{format_waiting(found)}")
    times = {
        condition: {name: asdict(seconds) for name, seconds in settings.items()}
        for condition, settings in found.items()
    }
    return {"options": asdict(options), "threads": times}


def time_pages(options: Options, data: Path, folder: Path) -> dict[str, Any]:
    """Pages for the browser, as the content of the JSON file."""
    software = pick_device(options.device).type == "cpu"
    found = measure_pages(data, folder, software, options.repetitions)
    print(format_pages(found))
    return {"options": asdict(options), "pages": [asdict(timing) for timing in found]}


def run(options: Options, folder: Path, accelerator: Accelerator) -> dict[str, Any]:
    """All measurements, as the content of the JSON file; prints while it goes."""
    device, sizes, say = accelerator.device, options.sizes(), accelerator.print
    square = 256 if options.quick else 8192 if device.type == "cuda" else 2048
    kinds = (torch.float32, torch.bfloat16)
    peaks = {dtype: matmul_peak(device, dtype, square) for dtype in kinds}
    dtype = max(kinds, key=peaks.__getitem__)
    shown = ", ".join(f"{str(d)[6:]} {p / 1e12:.3g} TFLOP/s" for d, p in peaks.items())
    say(f"{describe(device)}: {shown}; sampling and training in {str(dtype)[6:]}")
    networks = load_networks(options, sizes, folder, device, dtype)
    work = Workload(sizes, folder, *networks, dtype, accelerator.process_index)
    content: dict[str, Any] = {
        "options": asdict(options),
        "sizes": asdict(sizes),
        "device": describe(device),
        "peaks": {str(kind)[6:]: peak for kind, peak in peaks.items()},
        "dtype": str(dtype)[6:],
        "denoiser": pick_compiled(work, device),
    }
    if accelerator.num_processes > 1:
        efficiency = scaling_efficiency(work, accelerator, options.repetitions)
        say(f"scaling efficiency of {accelerator.num_processes} processes: {efficiency:.0%}")
        return content | {"processes": accelerator.num_processes, "efficiency": efficiency}
    rows = []
    skipped = 1 if options.data_dir else 0  # a cold start would remove the packed data of others
    chosen = tuple(options.items) or ("",)
    items = [*work.items()[skipped:], *LatentWorkload(work).items()]
    for item in [item for item in items if item.name.startswith(chosen)]:
        rows.append(measure_item(item, device, options.repetitions, peaks))
        say(f"{item.name}: {rows[-1].fast.median:.4g} s", flush=True)
    say(f"\n{format_rows(rows)}\n")
    content["rows"] = [asdict(row) | {"gain": row.gain} for row in rows]
    found = {row.name: row.fast.median for row in rows}
    if {"SoPo step", "MLD SoPo step"} <= found.keys():
        content["latent_gain"] = found["SoPo step"] / found["MLD SoPo step"]
        say(f"a SoPo step of MLD* is {content['latent_gain']:.1f}x as fast as one of MDM\n")
    if options.few_steps:
        batch = work.batch
        comparison = StepComparison(
            *(work.generator, work.reward, batch.captions, batch.lengths, sizes.candidates),
            GUIDANCE,
        )
        found = comparison.run()
        say(format_few_steps(found))
        content["few_steps"] = [asdict(row) for row in found]
    return content


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    if options.threads:
        content = compare_threads(options)
        options.write(content)
        return
    device = pick_device(options.device)
    accelerator = Accelerator(cpu=device.type == "cpu")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.data_dir or f"{temporary}/data")
        if not options.data_dir:
            make_clips(folder, options.sizes().clips)
        if options.pages:
            content = time_pages(options, folder, Path(temporary, "pages"))
        else:
            content = run(options, folder, accelerator)
    if accelerator.is_main_process:
        options.write(content)


if __name__ == "__main__":
    main()
