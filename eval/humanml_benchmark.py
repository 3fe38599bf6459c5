"""One run of the HumanML3D protocol: what it generates, embeds, logs and writes as tables."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.humanml import MotionBatch, SplitDatasetOptions, open_dataset, resolve_dataset
from eval.metrics import POOL
from eval.motion_quality import Judges, Quality, format_quality, measure_generator
from eval.progress import Progress
from eval.protocol import (
    MODEL,
    MODES,
    Embeddings,
    Protocol,
    Replication,
    check_distinct,
    report,
    run_replications,
    summarize,
    tell_broken,
)
from eval.results_table import STYLES, Setting, format_table, rows_of
from eval.split_embeddings import SplitEmbeddings
from model.checkpoint_files import (
    ModelPathOptions,
    find_checkpoint,
    label_of,
    read_model_args,
    run_folder,
)
from model.families import MDM_GUIDANCE, GeneratorOptions, usual_guidance
from model.seam import MotionGenerator, Samples
from rewards.best_of import BestOfOptions
from rewards.co_embedding import READ_BEYOND, CoEmbedder, EvaluatorFiles
from rewards.load import load_reward
from rewards.seam import check_width
from utils.devices import pick_device
from utils.errors import UserError
from utils.files import write_json, write_text
from utils.options import fixed_options, option, with_default
from utils.outputs import OutputDirOptions, ResumeOptions
from utils.provenance import provenance
from utils.seeding import torch_generator


@dataclass
class Options(
    ModelPathOptions,
    GeneratorOptions,
    SplitDatasetOptions,
    BestOfOptions,
    OutputDirOptions,
    ResumeOptions,
):
    eval_mode: str = option("wo_mm", "which protocol", choices=tuple(MODES))
    dataset: str = with_default("", "humanml, kit or another dataset; none = the model's")
    batch_size: int = with_default(32, "motions generated at once; pools stay at 32")
    replications: int = option(0, "repetitions of the evaluation; 0 = the mode's", minimum=0)
    num_motions: int = option(0, "generated motions; 0 = the mode's", minimum=0)
    diversity_pairs: int = option(
        0, "pairs of Diversity; 0 = the mode's, fewer on a small split", minimum=0
    )
    judge_path: str = option(
        "", "run folder of a TMR that no training has seen; none = skip", free="resume"
    )
    reward_path: list[str] = with_default(
        [], "run folders of the training reward, to show beside the judge and for --best_of"
    )
    measure_motions: bool = option(
        False, "feet, jerk and stated facts, without a judge as well", free="resume"
    )

    def validate(self) -> None:
        if self.rewarded:
            BestOfOptions.validate(self)
        elif self.best_of > 1:
            raise UserError("--best_of needs a reward: --reward_path, or --reward with a function")

    @property
    def rewarded(self) -> bool:
        """Is a reward asked for?"""
        return bool(self.reward_path) or self.reward != ["tmr"]

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
    """What N motions are generated for: captions, their tokens, the clips that they are of, and
    lengths ``[N]`` in frames."""

    captions: list[str]
    tokens: list[tuple[str, ...]]
    names: list[str]
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: Tensor) -> "Prompts":
        chosen = rows.tolist()
        lists = (self.captions, self.tokens, self.names)
        return Prompts(*([values[i] for i in chosen] for values in lists), self.lengths[rows])

    @staticmethod
    def of(batches: Sequence[MotionBatch]) -> "Prompts":
        return Prompts(
            [caption for batch in batches for caption in batch.captions],
            [tokens for batch in batches for tokens in batch.tokens],
            [name for batch in batches for name in batch.names],
            torch.cat([batch.lengths for batch in batches]),
        )


class Evaluation:
    """Embeddings of the ground truth and of the model's motions, for `run_replications`."""

    def __init__(
        self,
        generator: MotionGenerator,
        split: SplitEmbeddings,
        embedder: CoEmbedder,
        protocol: Protocol,
        options: Options,
    ) -> None:
        self.generator, self.split, self.embedder = generator, split, embedder
        self.protocol, self.options = protocol, options
        self.frames = split.data.skeleton.max_length
        self.rng = np.random.RandomState(options.seed)
        self.noise = torch_generator(options.seed, generator.device)

    def ground_truth(self, walk: int) -> Embeddings:
        """The whole split. Its draws are independent of those of the prompts."""
        return self.split.walk(2 * self.options.seed + 1, walk)

    def check_meanings(self) -> None:
        """Raises UserError where a replication will not draw enough distinct meanings."""
        if self.split.data.annotations:
            for replication in range(self.protocol.replications):
                check_distinct(self.split.meanings(self.prompts(replication).captions))

    def prompts(self, replication: int) -> Prompts:
        """Full pools, as many as motions are generated."""
        count = self.protocol.pools(len(self.split.data))
        pools = self.split.pools(2 * self.options.seed, replication)
        return Prompts.of([pool for pool, _ in zip(pools, range(count), strict=False)])

    def generated(self, replication: int) -> Embeddings:
        """One motion for each caption of the generated pools, and the repeats of some pools."""
        prompts = self.prompts(replication)
        count = len(prompts) // POOL
        rows = self.rng.choice(count, self.protocol.repeated_pools, replace=False)
        several = torch.arange(count * POOL).view(count, POOL)[rows].flatten()
        several = prompts[several.repeat_interleave(self.protocol.repeats)]
        repeats = self._embed_samples(several, f"replication {replication}, repeats")
        motions = self._embed_samples(prompts, f"replication {replication}")
        return Embeddings(
            self.split.texts(prompts.tokens).numpy(),
            motions.numpy(),
            repeats.unflatten(0, (-1, self.protocol.repeats)).numpy() if len(several) else None,
            self.split.meanings(prompts.captions),
            broken=(*_broken(motions, prompts), *_broken(repeats, several)),
        )

    def state(self) -> dict[str, Any]:
        """Both streams of random numbers, for JSON."""
        numbers = self.rng.get_state(legacy=False)
        numbers["state"]["key"] = numbers["state"]["key"].tolist()
        return {"numpy": numbers, "noise": self.noise.get_state().tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        numbers = state["numpy"]
        key = np.array(numbers["state"]["key"], np.uint32)
        self.rng.set_state(numbers | {"state": numbers["state"] | {"key": key}})
        self.noise.set_state(torch.tensor(state["noise"], dtype=torch.uint8))

    def _embed_samples(self, prompts: Prompts, name: str) -> Tensor:
        """Embeddings ``[N, d]`` of one generated motion per prompt, NaN for broken motions."""
        if not len(prompts):
            return torch.empty(0, self.embedder.width)
        batches = torch.arange(len(prompts)).split(self.options.batch_size)
        return torch.cat([self._embed_batch(prompts[rows]) for rows in tqdm(batches, desc=name)])

    @torch.no_grad()
    def _embed_batch(self, prompts: Prompts) -> Tensor:
        motions = self._sample(prompts).x.float()
        finite = motions.isfinite().all(dim=2).all(dim=1)
        motions = motions.where(finite[:, None, None], torch.zeros_like(motions))
        normalised = self.embedder.stats.normalize(motions)
        embedded = self.embedder.embed_motions(normalised, prompts.lengths)
        embedded[~finite.to(embedded.device)] = torch.nan
        return embedded

    def _sample(self, prompts: Prompts) -> Samples:
        """Raw motions ``[B, 196, D]`` that keep what was sampled just after their lengths.

        A sample ends with its longest motion, but the evaluators read a little further: one more
        motion of full length, then dropped, makes all frames available.
        """
        captions = [*prompts.captions, prompts.captions[-1]]
        lengths = torch.cat([prompts.lengths, torch.tensor([self.frames])])
        like = self.generator.blank(lengths.to(self.generator.device))
        condition = self.generator.encode_text(captions)
        return self.generator.decode(self.generator.sample(condition, like, self.noise))[:-1]


def _broken(embedded: Tensor, prompts: Prompts) -> list[str]:
    """The clips whose generated motion is broken."""
    finite = embedded.isfinite().all(dim=1).tolist()
    return [name for name, good in zip(prompts.names, finite, strict=True) if not good]


def log_path(options: Options, like: Path | None = None) -> Path:
    """Upstream's name; a sampler or split that upstream does not have is appended.

    like: a model of the same family, where the one to be judged is yet to be trained.
    """
    model_path = Path(options.model_path)
    if model_path.exists():
        model_path = like = find_checkpoint(model_path)
    model_path = model_path.resolve()
    folder = run_folder(model_path)
    name = f"eval_humanml_{folder.name}_{label_of(model_path)}"
    guidance = options.guidance_param
    if guidance is None:
        guidance = usual_guidance(like) if like and like.exists() else MDM_GUIDANCE
    if guidance != 1:
        name += f"_gscale{guidance}"
    name += f"_{options.eval_mode}"
    if options.sampler not in (None, "ancestral") or options.sample_steps:
        name += f"_{options.sampler or ''}{options.sample_steps or ''}"
    if options.best_of > 1:
        name += f"_best{options.best_of}"
    if options.split != "test":
        name += f"_{options.split}"
    return Path(options.output_dir or folder) / f"{name}.log"


@dataclass(frozen=True)
class Prepared:
    """An evaluation, how the table names its setting, and the judges that were asked for."""

    evaluation: Evaluation
    setting: Setting
    judges: Judges


def fit_protocol(options: Options, clips: int) -> Protocol:
    """The protocol on a split of so many clips; says so where pairs of Diversity are left out."""
    wanted = options.protocol()
    if options.diversity_pairs:
        return wanted
    protocol = wanted.fitted(clips)
    if protocol != wanted:
        print(
            f"Diversity of {protocol.diversity_pairs} pairs instead of {wanted.diversity_pairs}: "
            f"the split has {clips} clips"
        )
    return protocol


def prepare_evaluation(options: Options) -> Prepared:
    """Load everything and refuse what cannot work, before the long run."""
    dataset = options.dataset or str(read_model_args(options.model_path).get("dataset", "humanml"))
    folder = resolve_dataset(dataset, options.data_dir)
    files = EvaluatorFiles.find(dataset, folder.path, options.evaluator_dir, options.glove_dir)
    device = pick_device(options.device)
    embedder = CoEmbedder.load(files, device)
    rebuild = options.rebuild_cache
    data = open_dataset(dataset, options.split, options.data_dir, rebuild_cache=rebuild)
    protocol = fit_protocol(options, len(data))
    protocol.check(len(data), embedder.width)
    generator = options.load_generator(options.model_path, device, data.skeleton)
    generator = replace(generator, spill=READ_BEYOND)
    check_width("the evaluators", embedder.stats.feature_dim, data.skeleton, "pass --evaluator_dir")
    reward = load_reward(options, device, data) if options.rewarded else None
    text_encoder = options.reward_text_encoder_path
    judges = Judges.load(options.judge_path, reward, text_encoder, data.skeleton, device)
    chosen = generator
    if reward is not None:
        chosen = options.around(generator, reward, options.batch_size)
    setting = Setting(
        dataset=dataset,
        split=options.split,
        pools="distinct meanings" if data.annotations else "random",
        evaluators=files.digest(),
        seed=options.seed,
        **asdict(protocol),
    )
    evaluation = Evaluation(chosen, SplitEmbeddings(data, embedder), embedder, protocol, options)
    evaluation.check_meanings()
    return Prepared(evaluation, setting, judges)


def run_logged(prepared: Prepared, progress: Progress, resume: bool) -> list[Replication]:
    """All replications; the log grows while they run, and each is kept when it ends."""
    evaluation = prepared.evaluation
    done = progress.load(evaluation) if resume else progress.forget()
    progress.log.parent.mkdir(parents=True, exist_ok=True)
    with open(progress.log, "a" if done else "w", encoding="utf-8") as file:

        def log(text: str) -> None:
            tqdm.write(text)
            print(text, file=file, flush=True)

        return run_replications(
            evaluation.protocol,
            evaluation.generated,
            evaluation.ground_truth,
            evaluation.rng,
            log,
            done,
            lambda replications: progress.save(evaluation, replications),
        )


def write_tables(content: dict[str, Any], setting: Setting, path: Path) -> str:
    """The results of `path` (a log) as Markdown, LaTeX and CSV beside it; returns the first."""
    lost = [name for names in content["broken_motions"].values() for name in names]
    notes = [f"warning: left out, NaN or infinity: {tell_broken(lost)}"] if lost else []
    if content["quality"]:
        rows = {name: Quality(**row) for name, row in content["quality"].items()}
        notes.append(f"One motion per clip:\n\n{format_quality(rows)}")
    tables = {
        style.suffix: format_table(rows_of(content), setting, style, notes)
        for style in STYLES.values()
    }
    for suffix, table in tables.items():
        write_text(path.with_suffix(suffix), table)
    return tables[".md"]


def evaluate(options: Options) -> Path:
    """The whole benchmark of one checkpoint; returns the path of the log."""
    read_model_args(options.model_path)
    path = log_path(options)
    if path.exists() and not (options.overwrite or options.resume):
        raise UserError(
            f"{path} exists already; add --overwrite to replace it, or --resume to go on"
        )
    prepared = prepare_evaluation(options)
    fixed = fixed_options(options, resumed=True)
    if options.best_of > 1:  # here the reward chooses the motions, and is not only shown
        fixed["reward_path"] = options.reward_path
    progress = Progress(path, fixed | asdict(prepared.setting))
    replications = run_logged(prepared, progress, options.resume)
    evaluation, quality = prepared.evaluation, {}
    if options.measure_motions or options.judge_path or options.rewarded:
        data = evaluation.split.data
        quality = measure_generator(evaluation.generator, data, prepared.judges, options)
    content = {
        "name": run_folder(Path(options.model_path).resolve()).name,
        "setting": asdict(prepared.setting),
        "options": asdict(options),
        "results": report(summarize(replications)),
        "broken_motions": {number: row[MODEL].broken for number, row in enumerate(replications)},
        "quality": {name: asdict(row) for name, row in quality.items()},
        "provenance": provenance(),
    }
    write_json(path.with_suffix(".json"), content)
    print(write_tables(content, prepared.setting, path))
    progress.path.unlink()
    return path
