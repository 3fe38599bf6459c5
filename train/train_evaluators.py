"""Train the co-embedding evaluators (Guo et al. 2022) for a dataset that has none.

    python -m train.train_evaluators --dataset mine --save_dir evaluators/mine
    python -m eval.eval_humanml --model_path ... --dataset mine --evaluator_dir evaluators/mine

Two stages: a movement autoencoder on windows of 24 frames, then the co-embedding of texts and
motions on its frozen movements. The folder has upstream's layout: text_mot_match/model/finest.tar
(lowest loss on val), Comp_v6_KLD005/meta/{mean,std}.npy, Decomp_SP001_SM001_H512/model/latest.tar,
and glove with the word vectors that were used: those of --glove_dir where there is such a folder,
else the built-in ones of the words of the train split. It ends with the figures of real motions on
val, so that one sees whether these evaluators are fit to judge.

Differences from upstream's training: a negative is never the positive, nor another clip whose
caption states the same (datasets with annotations); gradients of both encoders are clipped
together; lengths are in steps, by default upstream's 300 epochs of HumanML3D for the second stage
and far fewer than its 270 for the first, whose loss is flat long before.
"""

from utils.start import entry_point

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from data_loaders.captions import pad_sentence
from data_loaders.humanml import MotionDataset, make_loader, open_dataset
from data_loaders.normalizer import Statistics
from eval.metrics import POOL, fid, matching_score
from eval.protocol import precision
from model.text.word_tokens import BuiltinEncoder, WordLlamaEncoder
from rewards.co_embedding import CONTACTS, STATS_FOLDERS, CoEmbedder, EvaluatorFiles, find_folder
from rewards.word_vectors import VECTORS_FILE, WordVectorizer
from train.data import check_batch_size, validation_pool
from train.evaluator_tasks import (
    MATCHING,
    MOVEMENTS,
    WORD_VECTORS,
    EvaluatorOptions,
    MatchingTask,
    MovementTask,
    Stage,
)
from train.fingerprints import fingerprints
from train.loop import Trainer, start_run
from train.run_state import states_in
from train.task import options_to_args
from utils.errors import UserError
from utils.files import atomic_write, write_json
from utils.locks import FolderLock
from utils.options import parse_options
from utils.seeding import seed_everything

Options = EvaluatorOptions  # as every script calls them

ROOT_FEATURES = 4
FEATURE_WEIGHT = 25  # root and contacts weigh so much more: upstream divides by feat_bias 5 twice


def evaluator_statistics(stats: Statistics) -> Statistics:
    """The dataset's statistics with root and contacts weighing `FEATURE_WEIGHT` times more."""
    std = stats.std.clone()
    std[:ROOT_FEATURES] /= FEATURE_WEIGHT
    std[-CONTACTS:] /= FEATURE_WEIGHT
    return Statistics("evaluator_stats", stats.mean, std)


def vectorizer_of(
    encoder: BuiltinEncoder | WordLlamaEncoder, data: MotionDataset
) -> WordVectorizer:
    """An encoder's vectors for the words of all captions, and ``unk``."""
    captions = (caption for entry in data.entries for caption in entry.captions)
    tokens = {token for caption in captions for token in pad_sentence(caption.tokens)[0]}
    words = sorted({token.split("/")[0] for token in tokens} | {"unk"})
    vectors = np.stack([encoder.word(word) for word in words])
    return WordVectorizer(vectors, {word: row for row, word in enumerate(words)})


@torch.no_grad()
def real_figures(
    embedder: CoEmbedder, data: MotionDataset, seed: int, pool: int = POOL
) -> dict[str, float]:
    """R-Precision, MM-Dist, and FID of one half against the other, of real motions.

    Pools are of distinct meanings where the dataset has annotations. The FID is that of singular
    covariances where a half has fewer motions than the embedding has numbers, and is left out
    where a half has one.
    """
    texts, motions, captions = [], [], []
    for batch in make_loader(data, 256, shuffle=True, seed=seed, pad_to=data.skeleton.max_length):
        texts.append(embedder.embed_texts(batch.tokens))
        motions.append(embedder.embed_motions(batch.normalized(embedder.stats), batch.lengths))
        captions += batch.captions
    text, motion = torch.cat(texts).numpy(), torch.cat(motions).numpy()
    meanings = data.meanings(captions) if data.annotations else None
    tops = precision(text, motion, meanings, np.random.RandomState(seed), pool)
    figures = {f"R-Precision top {k}": float(v) for k, v in enumerate(tops, start=1)}
    figures["MM-Dist"] = matching_score(text, motion)
    first, second = np.array_split(motion, 2)
    if len(second) > 1:
        figures["FID of two halves"] = fid(first, second, allow_singular=True)
    return figures


def open_split(options: EvaluatorOptions, split: str) -> MotionDataset:
    """In the statistics of the evaluators; random items in training only."""
    data = open_dataset(
        options.dataset,
        split,
        options.data_dir,
        random_items=split == "train",
        rebuild_cache=options.rebuild_cache,
    )
    data.stats = evaluator_statistics(data.stats)
    return data


def word_vectors(options: EvaluatorOptions, data: MotionDataset) -> tuple[WordVectorizer, str]:
    """The vectors and where they are from."""
    folder = find_folder(options.glove_dir, "glove")
    if (folder / VECTORS_FILE).is_file():
        return WordVectorizer.load(folder), str(folder)
    if options.glove_dir:
        raise UserError(f"--glove_dir {folder} has no {VECTORS_FILE}")
    encoder = WORD_VECTORS[options.word_vectors]()
    return vectorizer_of(encoder, data), f"{options.word_vectors}, {encoder.width} numbers per word"


def run_stage(
    task: Stage,
    folder: str,
    options: EvaluatorOptions,
    accelerator: Accelerator,
    inputs: dict[str, str],
) -> None:
    """One stage on the training loop, in a folder of its own; a finished one ends at once."""
    save_dir = Path(options.save_dir) / folder
    resume = options.resume and bool(states_in(save_dir))
    own = {"save_dir": str(save_dir), "resume": resume}
    own["overwrite"] = options.overwrite or options.resume  # it may have been cut off before
    Trainer(task, replace(options, **own), accelerator, recorded=True, inputs=inputs).run()
    accelerator.wait_for_everyone()  # the main process has written what the others read next


def save_inputs(
    options: EvaluatorOptions, stats: Statistics, vectorizer: WordVectorizer, words: str
) -> None:
    """Options, word vectors and statistics, where `EvaluatorFiles` looks for them."""
    save_dir = Path(options.save_dir)
    args = {**options_to_args(options), "vectors_from": words}
    write_json(save_dir / "args.json", args)
    vectorizer.save(save_dir / "glove")
    for name, value in (("mean", stats.mean), ("std", stats.std)):
        with atomic_write(save_dir / STATS_FOLDERS[1] / "meta" / f"{name}.npy") as temporary:
            np.save(temporary, value.numpy())


def train(options: EvaluatorOptions) -> dict[str, float]:
    """Both stages; returns the figures of real motions on the val split."""
    accelerator = start_run(options, folders=(MOVEMENTS, MATCHING))
    with FolderLock(options.save_dir) if accelerator.is_main_process else nullcontext():
        return _train(options, accelerator)


def _train(options: EvaluatorOptions, accelerator: Accelerator) -> dict[str, float]:
    device, main_process = accelerator.device, accelerator.is_main_process
    data, val = open_split(options, "train"), open_split(options, "val")
    check_batch_size(data, options)
    pool = validation_pool(val)
    vectorizer, words = word_vectors(options, data)
    movement = MovementTask(options, data, val, device)
    if main_process:
        print(f"word vectors: {words}")
        save_inputs(options, data.stats, vectorizer, words)
    first = replace(options, num_steps=options.movement_steps, grad_clip=0.0)
    inputs = fingerprints(data, val)
    run_stage(movement, MOVEMENTS, first, accelerator, inputs)
    seed_everything(options.seed)  # so that a resumed second stage starts as in an unbroken run
    matching = MatchingTask(options, data, val, vectorizer, device)
    run_stage(matching, MATCHING, options, accelerator, inputs)
    files = EvaluatorFiles.find(options.dataset, data.folder.path, options.save_dir)
    figures = real_figures(CoEmbedder.load(files, device), val, options.seed, pool)
    if main_process:
        pools = "distinct meanings" if data.annotations else "random captions"
        report = {"split": "val", "clips": len(val), "pools": pools, **figures}
        write_json(Path(options.save_dir) / "real_figures.json", report)
        print(f"real motions, val split of {len(val)} clips, pools of {pool} {pools}:")
        print(", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    return figures


@entry_point
def main() -> None:
    train(parse_options(EvaluatorOptions, description=__doc__))


if __name__ == "__main__":
    main()
