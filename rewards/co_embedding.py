"""The co-embedding evaluators behind every HumanML3D and KIT table (Guo et al., CVPR 2022).

A text encoder and a motion encoder map into one space in which distance means mismatch. The motion
encoder reads movements: 4 frames each, from a convolutional encoder. Parameter names equal
upstream's, so its ``text_mot_match/model/finest.tar`` loads strictly.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from data_loaders.normalizer import Statistics
from model.single_file import SUFFIX, is_single_file, read_single_state
from rewards.word_vectors import (
    CLASSES,
    ROWS_FILE,
    VECTORS_FILE,
    WORDS_FILE,
    Sentences,
    WordVectorizer,
)
from utils.errors import UserError
from utils.files import load_tensors
from utils.options import option
from utils.places import here_or_project

CONTACTS = 4  # the last feature columns, which the movement encoder does not see
FRAMES_PER_MOVEMENT = 4
READ_BEYOND = 4  # frames after a motion's length that the convolutions may read
FOLDERS = {"humanml": "t2m", "kit": "kit"}  # where the published evaluators unpack to
# The published statistics come with generators of these names, which differ between releases.
STATS_FOLDERS = ("Comp_v6_KLD01", "Comp_v6_KLD005")


@dataclass(frozen=True)
class EvaluatorSizes:
    """Widths of the networks; the defaults are those of the published HumanML3D evaluators."""

    features: int = 263
    movement_hidden: int = 512
    movement: int = 512
    word: int = 300
    text_hidden: int = 512
    motion_hidden: int = 1024
    embedding: int = 512


class MovementConvEncoder(nn.Module):
    """Motions ``[B, T, D]`` without their contacts to movements ``[B, T/4, movement]``."""

    def __init__(self, features: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv1d(features - CONTACTS, hidden, kernel_size=4, stride=2, padding=1),
            nn.Dropout(0.2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(hidden, latent, kernel_size=4, stride=2, padding=1),
            nn.Dropout(0.2),
            nn.LeakyReLU(0.2),
        )
        self.out_net = nn.Linear(latent, latent)

    def forward(self, motion: Tensor) -> Tensor:
        return self.out_net(self.main(motion[..., :-CONTACTS].transpose(1, 2)).transpose(1, 2))


class MovementConvDecoder(nn.Module):
    """Movements ``[B, T/4, latent]`` back to motions ``[B, T, D]``; needed in training only."""

    def __init__(self, features: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose1d(latent, hidden, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose1d(hidden, features, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.out_net = nn.Linear(features, features)

    def forward(self, movements: Tensor) -> Tensor:
        return self.out_net(self.main(movements.transpose(1, 2)).transpose(1, 2))


class SequenceEncoder(nn.Module):
    """A bidirectional GRU from a learned state; its two last states give the embedding."""

    def __init__(self, width: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.randn(2, 1, hidden))
        self.input_emb = nn.Linear(width, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.output_net = nn.Sequential(
            nn.Linear(2 * hidden, hidden),
            nn.LayerNorm(hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, embedding),
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """``[B, L, width]`` with lengths ``[B]`` of at least 1 to ``[B, embedding]``.

        Packing sorts by length, as upstream does, and here gives the order of the input back.
        """
        packed = pack_padded_sequence(
            self.input_emb(x), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        start = self.hidden.expand(-1, len(x), -1).contiguous()
        _, (forward, backward) = self.gru(packed, start)
        return self.output_net(torch.cat([forward, backward], dim=-1))


class TextEncoder(SequenceEncoder):
    """Word vectors plus a projection of the one-hot word classes, read by the GRU."""

    def __init__(self, word: int, hidden: int, embedding: int) -> None:
        super().__init__(word, hidden, embedding)
        self.pos_emb = nn.Linear(len(CLASSES), word)

    def embed(self, sentences: Sentences) -> Tensor:
        """B sentences to ``[B, embedding]``."""
        return self(sentences.words + self.pos_emb(sentences.classes), sentences.lengths)


class Evaluators(nn.Module):
    """The three networks. Distances between embeddings of texts and motions are Euclidean."""

    def __init__(self, sizes: EvaluatorSizes = EvaluatorSizes()) -> None:
        super().__init__()
        self.sizes = sizes
        self.movement_encoder = MovementConvEncoder(
            sizes.features, sizes.movement_hidden, sizes.movement
        )
        self.text_encoder = TextEncoder(sizes.word, sizes.text_hidden, sizes.embedding)
        self.motion_encoder = SequenceEncoder(sizes.movement, sizes.motion_hidden, sizes.embedding)

    def embed_texts(self, sentences: Sentences) -> Tensor:
        """``[B, embedding]``, in the order of the input."""
        return self.text_encoder.embed(sentences)

    def embed_motions(self, motions: Tensor, lengths: Tensor) -> Tensor:
        """Motions ``[B, T, D]`` normalised by the evaluator's statistics to ``[B, embedding]``.

        Lengths ``[B]`` are in frames, at least 4. The convolutions of a motion's last movement read
        up to 3 frames after its length: published figures have zeros there for ground truth, and
        whatever the model sampled for generated motions.
        """
        movements = self.movement_encoder(motions)
        return self.motion_encoder(movements, lengths // FRAMES_PER_MOVEMENT)

    @staticmethod
    def load(path: str | Path, device: torch.device | str = "cpu") -> "Evaluators":
        """Upstream's ``finest.tar`` (or one of other widths, or its keys as ``.safetensors``),
        frozen and in eval mode.

        Raises UserError when it is missing, unsafe, or holds other networks.
        """
        state = _read_networks(Path(path))
        evaluators = Evaluators(_sizes_of(state, path))
        for name, network in evaluators.named_children():
            try:
                network.load_state_dict(state[name], strict=True)
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise UserError(f"{path}: its {name} is another network ({reason})") from None
        return evaluators.to(device).eval().requires_grad_(False)


def _read_networks(path: Path) -> Any:
    """The state of each network by name."""
    if not is_single_file(path):
        return load_tensors(path)
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in read_single_state(path).items():
        network, _, rest = key.partition(".")
        state.setdefault(network, {})[rest] = value
    return state


def _sizes_of(state: Any, path: str | Path) -> EvaluatorSizes:
    """The widths that the tensors of a checkpoint imply."""
    try:
        movement, text, motion = (
            {key: tuple(value.shape) for key, value in state[name].items()}
            for name in ("movement_encoder", "text_encoder", "motion_encoder")
        )
        return EvaluatorSizes(
            features=movement["main.0.weight"][1] + CONTACTS,
            movement_hidden=movement["main.0.weight"][0],
            movement=movement["main.3.weight"][0],
            word=text["pos_emb.weight"][0],
            text_hidden=text["hidden"][2],
            motion_hidden=motion["hidden"][2],
            embedding=text["output_net.3.weight"][0],
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{path} is not a checkpoint of the evaluators: it needs movement_encoder, "
            f"text_encoder and motion_encoder ({type(error).__name__}: {error})"
        ) from None


@dataclass
class EvaluatorPaths:
    """For every script that reads the evaluators."""

    evaluator_dir: str = option(
        "", "folder of the evaluators, where it is not t2m or kit", free="resume"
    )
    glove_dir: str = option("", "folder of the word vectors, where it is not glove", free="resume")


@dataclass(frozen=True)
class EvaluatorFiles:
    """Checkpoint, the statistics it was trained with, and the GloVe folder."""

    checkpoint: Path
    mean: Path
    std: Path
    glove: Path

    @staticmethod
    def find(
        dataset: str, data_folder: Path, folder: str = "", glove: str = ""
    ) -> "EvaluatorFiles":
        """Look in `folder`, else in ``t2m`` or ``kit`` here or in the project; for word vectors in
        `glove`, else in the evaluators' own ``glove``, else in ``glove`` here or in the project.
        The statistics are ``meta/{mean,std}.npy`` in one of the folder's `STATS_FOLDERS`, or
        ``{t2m,kit}_{mean,std}.npy`` beside the dataset's folder, as MDM distributes them.

        Raises UserError with one line that names everything missing and where it belongs.
        """
        if not folder and dataset not in FOLDERS:
            raise UserError(
                f"no evaluators are published for dataset {dataset}; train them with: python -m "
                f"train.train_evaluators --dataset {dataset} --save_dir FOLDER, and pass "
                "--evaluator_dir FOLDER"
            )
        root = find_folder(folder, FOLDERS.get(dataset, ""))
        own_words = root / "glove"
        if not glove and own_words.is_dir():
            glove = str(own_words)
        beside = data_folder.parent / f"{FOLDERS.get(dataset, root.name)}_mean.npy"
        means = [*(root / name / "meta" / "mean.npy" for name in STATS_FOLDERS), beside]
        mean = next((path for path in means if path.is_file()), means[0])
        checkpoint = root / "text_mot_match" / "model" / "finest.tar"
        single = checkpoint.with_suffix(SUFFIX)
        files = EvaluatorFiles(
            checkpoint=single if single.is_file() else checkpoint,
            mean=mean,
            std=mean.with_name(mean.name.replace("mean", "std")),
            glove=find_folder(glove, "glove"),
        )
        files._check_presence(beside)
        return files

    def digest(self) -> str:
        """Which evaluators these are: the start of the checkpoint's SHA-256."""
        return hashlib.sha256(self.checkpoint.read_bytes()).hexdigest()[:16]

    def _check_presence(self, beside: Path) -> None:
        words = [self.glove / name for name in (VECTORS_FILE, WORDS_FILE, ROWS_FILE)]
        missing = [p for p in (self.checkpoint, self.mean, self.std, *words) if not p.is_file()]
        if missing:
            names = ", ".join(map(str, missing))
            raise UserError(
                f"the evaluation lacks {names}; put the evaluators and GloVe of Guo et al. (2022) "
                f"there, or pass --evaluator_dir and --glove_dir (the statistics may also be in "
                f"{STATS_FOLDERS[1]}, or {beside} and its _std)"
            )


def find_folder(given: str, name: str) -> Path:
    """The folder that was asked for, else `name` here or in the project."""
    return Path(given) if given else here_or_project(name)


@dataclass
class CoEmbedder:
    """Evaluators with their statistics and vocabulary: raw captions and motions in."""

    evaluators: Evaluators
    stats: Statistics
    vectorizer: WordVectorizer
    device: torch.device

    @staticmethod
    def load(files: EvaluatorFiles, device: torch.device) -> "CoEmbedder":
        """Raises UserError when a file is damaged or they do not fit together."""
        evaluators = Evaluators.load(files.checkpoint, device)
        stats = Statistics.load(files.mean, files.std, "evaluator_stats")
        vectorizer = WordVectorizer.load(files.glove)
        sizes = evaluators.sizes
        if stats.feature_dim != sizes.features:
            raise UserError(
                f"{files.mean} has {stats.feature_dim} features, the evaluators of "
                f"{files.checkpoint} read {sizes.features}"
            )
        if vectorizer.vectors.shape[1] != sizes.word:
            raise UserError(
                f"{files.glove / VECTORS_FILE} has vectors of {vectorizer.vectors.shape[1]} "
                f"numbers, the evaluators of {files.checkpoint} read {sizes.word}"
            )
        return CoEmbedder(evaluators, stats, vectorizer, device)

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.evaluators.sizes.embedding

    @torch.no_grad()
    def embed_texts(self, tokens: list[tuple[str, ...]]) -> Tensor:
        """``word/POS`` tokens of B captions to ``[B, d]`` on the CPU."""
        return self.evaluators.embed_texts(self.vectorizer.encode(tokens).to(self.device)).cpu()

    @torch.no_grad()
    def embed_motions(self, motions: Tensor, lengths: Tensor) -> Tensor:
        """Motions ``[B, T, D]`` normalised by `stats`, lengths ``[B]`` -> ``[B, d]`` on the CPU."""
        return self.evaluators.embed_motions(motions.to(self.device), lengths).cpu()
