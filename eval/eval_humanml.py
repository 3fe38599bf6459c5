"""The HumanML3D / KIT table of a model: R-Precision, FID, MM-Dist, Diversity, MultiModality.

    python -m eval.eval_humanml --model_path save/my_model/model000475000.pt --eval_mode wo_mm
    python -m eval.eval_humanml --model_path ... --eval_mode mm_short

Modes (Tevet et al. 2023): wo_mm = 20 replications; mm_short = 5 with MultiModality; debug = 5.
Each replication generates 1024 motions for captions and lengths of the split and walks the whole
split as ground truth. Needs upstream's evaluators (folder t2m or kit), their statistics and the
folder glove. Writes eval_humanml_{folder}_{step}_gscale{g}_{mode}.log beside the checkpoint, with
a .json of all values and a .md table.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.humanml import (
    MotionBatch,
    MotionDataset,
    make_loader,
    open_dataset,
    resolve_dataset,
)
from data_loaders.normalizer import convert
from eval.evaluators import CoEmbedder, EvaluatorFiles
from eval.metrics import POOL
from eval.protocol import (
    MODEL,
    MODES,
    REAL,
    Embeddings,
    Protocol,
    format_table,
    report,
    run_replications,
    summarize,
)
from model.checkpoints import load_generator, read_model_args, step_of
from model.generator import MotionGenerator, SamplerOptions
from train.loop import pick_device
from utils.errors import UserError, entry_point
from utils.files import write_json, write_text
from utils.options import option, parse_options
from utils.provenance import provenance
from utils.seeding import torch_generator


@dataclass
class Options:
    model_path: str = option("", "checkpoint, e.g. save/NAME/model000475000.pt", required=True)
    eval_mode: str = option("wo_mm", "which protocol", choices=tuple(MODES))
    guidance_param: float = option(2.5, "guidance scale; 1 = plain conditional", minimum=0)
    seed: int = option(10, "seed of every random draw", minimum=0)
    dataset: str = option("", "humanml, kit or another dataset; none = the checkpoint's")
    split: str = option("test", "its split; val while developing")
    data_dir: str = option("", "dataset folder, where it is not dataset/NAME")
    evaluator_dir: str = option("", "folder of the evaluators, where it is not t2m or kit")
    glove_dir: str = option("", "folder of the word vectors, where it is not glove")
    text_encoder_path: str = option("", "local folder of CLIP or DistilBERT")
    sampler: str = option("ancestral", "sampling algorithm", choices=("ancestral", "ddim"))
    sample_steps: int = option(0, "denoising steps; 0 = all of the model's", minimum=0)
    batch_size: int = option(32, "motions generated at once; pools stay at 32", minimum=1)
    replications: int = option(0, "repetitions of the evaluation; 0 = the mode's", minimum=0)
    num_motions: int = option(0, "generated motions; 0 = the mode's", minimum=0)
    diversity_pairs: int = option(0, "pairs of Diversity; 0 = the mode's", minimum=0)
    device: str = option("auto", "auto, cpu, cuda, or a CUDA index")
    precision: str = option("fp32", "of the generator", choices=("fp32", "bf16"))
    output_dir: str = option("", "folder for log and tables; none = beside the checkpoint")
    overwrite: bool = option(False, "replace the log of an earlier evaluation")

    def protocol(self) -> Protocol:
        """The mode's protocol with the sizes that were given."""
        given = {
            "replications": self.replications,
            "motions": self.num_motions,
            "diversity_pairs": self.diversity_pairs,
        }
        return replace(MODES[self.eval_mode], **{k: v for k, v in given.items() if v})


@dataclass(frozen=True)
class Prompts:
    """What N motions are generated for: captions, their tokens, and lengths ``[N]`` in frames."""

    captions: list[str]
    tokens: list[tuple[str, ...]]
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: Tensor) -> "Prompts":
        chosen = rows.tolist()
        return Prompts(
            [self.captions[i] for i in chosen], [self.tokens[i] for i in chosen], self.lengths[rows]
        )


class Evaluation:
    """Embeddings of the ground truth and of the model's motions, for `run_replications`."""

    def __init__(
        self,
        generator: MotionGenerator,
        data: MotionDataset,
        embedder: CoEmbedder,
        protocol: Protocol,
        options: Options,
    ) -> None:
        self.generator, self.data, self.embedder = generator, data, embedder
        self.protocol, self.options = protocol, options
        self.frames = data.skeleton.max_length
        self.rng = np.random.RandomState(options.seed)
        self.noise = torch_generator(options.seed, generator.device)

    def ground_truth(self, walk: int) -> Embeddings:
        """The whole split in shuffled full pools, cropped and captioned anew in every walk."""
        data = self.data
        real = MotionDataset(
            data.folder, data.packed, data.entries, self.embedder.stats, data.annotations
        )
        texts, motions = [], []
        for batch in self._pools(real, stream=1, walk=walk):
            texts.append(self.embedder.embed_texts(batch.tokens))
            motions.append(self.embedder.embed_motions(batch.motion, batch.lengths))
        return Embeddings(torch.cat(texts).numpy(), torch.cat(motions).numpy())

    def generated(self, replication: int) -> Embeddings:
        """One motion for each caption of the generated pools, and the repeats of some pools."""
        count = self.protocol.pools(len(self.data))
        pools = self._pools(self.data, stream=0, walk=replication)
        prompts = _prompts([pool for pool, _ in zip(pools, range(count), strict=False)])
        repeated = None
        rows = self.rng.choice(count, self.protocol.repeated_pools, replace=False)
        if len(rows):
            several = prompts[torch.arange(count * POOL).view(count, POOL)[rows].flatten()]
            repeated = self._embed_repeats(several, replication)
        motions = self._embed_samples(prompts, f"replication {replication}")
        return Embeddings(
            self.embedder.embed_texts(prompts.tokens).numpy(), motions.numpy(), repeated
        )

    def _pools(self, data: MotionDataset, stream: int, walk: int) -> Iterator[MotionBatch]:
        """Shuffled batches of 32; streams keep prompts and ground truth independent."""
        return make_loader(
            data,
            POOL,
            shuffle=True,
            seed=2 * self.options.seed + stream,
            epoch=walk,
            drop_last=True,
            pad_to=self.frames,
        )

    def _embed_repeats(self, prompts: Prompts, replication: int) -> np.ndarray:
        """``[captions, repeats, d]``."""
        repeats = self.protocol.repeats
        rows = torch.arange(len(prompts)).repeat_interleave(repeats)
        embedded = self._embed_samples(prompts[rows], f"replication {replication}, repeats")
        return embedded.unflatten(0, (-1, repeats)).numpy()

    def _embed_samples(self, prompts: Prompts, name: str) -> Tensor:
        """Embeddings ``[N, d]`` of one generated motion per prompt."""
        batches = torch.arange(len(prompts)).split(self.options.batch_size)
        return torch.cat([self._embed_batch(prompts[rows]) for rows in tqdm(batches, desc=name)])

    @torch.no_grad()
    def _embed_batch(self, prompts: Prompts) -> Tensor:
        motions = self._sample(prompts).float()
        if not motions.isfinite().all():
            raise UserError("generated motions hold NaN or infinity: the model has diverged")
        normalised = convert(motions, self.generator.stats, self.embedder.stats)
        return self.embedder.embed_motions(normalised, prompts.lengths)

    def _sample(self, prompts: Prompts) -> Tensor:
        """Motions ``[B, 196, D]`` that keep what was sampled after their lengths.

        A sample ends with its longest motion, but the evaluators read a little further: one more
        motion of full length, then dropped, makes all frames available.
        """
        captions = [*prompts.captions, prompts.captions[-1]]
        lengths = torch.cat([prompts.lengths, torch.tensor([self.frames])])
        return self.generator.sample(
            self.generator.encode_text(captions),
            lengths.to(self.generator.device),
            SamplerOptions(self.options.sampler, self.options.sample_steps or None),
            self.options.guidance_param,
            generator=self.noise,
        )[:-1]


def _prompts(batches: list[MotionBatch]) -> Prompts:
    return Prompts(
        [caption for batch in batches for caption in batch.captions],
        [tokens for batch in batches for tokens in batch.tokens],
        torch.cat([batch.lengths for batch in batches]),
    )


def log_path(options: Options) -> Path:
    """Upstream's name; a sampler or split that upstream does not have is appended."""
    model_path = Path(options.model_path).resolve()
    name = f"eval_humanml_{model_path.parent.name}_{step_of(model_path):09d}"
    if options.guidance_param != 1:
        name += f"_gscale{options.guidance_param}"
    name += f"_{options.eval_mode}"
    if options.sampler != "ancestral" or options.sample_steps:
        name += f"_{options.sampler}{options.sample_steps or ''}"
    if options.split != "test":
        name += f"_{options.split}"
    return Path(options.output_dir or model_path.parent) / f"{name}.log"


def prepare_evaluation(options: Options) -> Evaluation:
    """Load everything and refuse what cannot work, before the long run."""
    dataset = options.dataset or str(read_model_args(options.model_path).get("dataset", "humanml"))
    folder = resolve_dataset(dataset, options.data_dir)
    files = EvaluatorFiles.find(dataset, folder.path, options.evaluator_dir, options.glove_dir)
    device = pick_device(options.device)
    embedder = CoEmbedder.load(files, device)
    data = open_dataset(dataset, options.split, options.data_dir)
    protocol = options.protocol()
    protocol.check(len(data), embedder.evaluators.sizes.embedding)
    generator = load_generator(
        options.model_path,
        device,
        data_dir=options.data_dir,
        text_encoder_path=options.text_encoder_path,
        autocast=torch.bfloat16 if options.precision == "bf16" else None,
    )
    widths = {
        "the model": generator.stats.feature_dim,
        f"dataset {dataset}": data.stats.feature_dim,
        "the evaluators": embedder.stats.feature_dim,
    }
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{name} has {width}" for name, width in widths.items())
        raise UserError(f"the numbers of features differ: {found}; pass a matching --dataset")
    return Evaluation(generator, data, embedder, protocol, options)


def evaluate(options: Options) -> Path:
    """Run the script; returns the path of the log."""
    read_model_args(options.model_path)
    path = log_path(options)
    if path.exists() and not options.overwrite:
        raise UserError(f"{path} exists already; add --overwrite to replace it")
    evaluation = prepare_evaluation(options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:  # grows while the replications run

        def log(text: str) -> None:
            tqdm.write(text)
            print(text, file=file, flush=True)

        replications = run_replications(
            evaluation.protocol, evaluation.generated, evaluation.ground_truth, evaluation.rng, log
        )
    summary = summarize(replications)
    table = format_table(summary, {REAL: "real", MODEL: Path(options.model_path).parent.name})
    write_text(path.with_suffix(".md"), table + "\n")
    content = {
        "options": asdict(options),
        "protocol": asdict(evaluation.protocol),
        "results": report(summary),
        "provenance": provenance(),
    }
    write_json(path.with_suffix(".json"), content)
    print(table)
    return path


@entry_point
def main() -> None:
    print(f"log: {evaluate(parse_options(Options, description=__doc__))}")


if __name__ == "__main__":
    main()
