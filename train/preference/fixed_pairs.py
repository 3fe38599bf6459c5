"""Pairs generated beforehand: their folder, and the pair source that reads it.

    FOLDER/index.json                what was generated for what, with which options
    FOLDER/pairs_NNNNNN.safetensors  captions [N * batch_size, (N + 1) * batch_size) of the index:
        best, worst   raw features of the motions, one after the other, float32 [sum of lengths, D]
        rewards       of all K candidates, float32 [captions, K]

`prepare.preference_pairs` writes it. Offline DPO reads the worst motions, MoDiPO both.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data_loaders.humanml import MotionBatch, MotionDataset, unit_length
from model.mdm.generator import MotionGenerator
from model.text.encoders import Condition
from rewards.tmr import Reward
from train.preference.methods import Pairing
from train.preference.pairs import Candidates, PreferenceBatch, match_frames
from utils.errors import UserError
from utils.files import atomic_write, read_json, write_json
from utils.provenance import provenance

PREPARE = "python -m prepare.preference_pairs"


@dataclass(frozen=True)
class PairKey:
    """What a pair was generated for: a clip, one of its captions, and a length in frames."""

    clip: str
    caption: str
    length: int


@dataclass(frozen=True)
class PairIndex:
    """What a folder of pairs holds once it is complete. `options` are those it was made with."""

    dataset: str
    feature_dim: int
    options: dict[str, Any]
    keys: list[PairKey]

    @property
    def shards(self) -> list[list[PairKey]]:
        """The keys of each file."""
        size = self.options["batch_size"]
        return [self.keys[i : i + size] for i in range(0, len(self.keys), size)]

    def write(self, folder: Path) -> None:
        write_json(folder / "index.json", {**asdict(self), "provenance": provenance()})

    @staticmethod
    def read(folder: Path) -> "PairIndex":
        """Raises UserError when there is none, or when it is not one."""
        path = folder / "index.json"
        if not path.is_file():
            raise UserError(f"{folder} holds no preference pairs (no index.json); see {PREPARE}")
        content = read_json(path)
        try:
            keys = [PairKey(**key) for key in content["keys"]]
            options = dict(content["options"])
            if not (keys and options["batch_size"] > 0 and options["num_candidates"] > 0):
                raise ValueError("it is empty")
            return PairIndex(content["dataset"], content["feature_dim"], options, keys)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is no index of preference pairs ({error}); see {PREPARE}"
            ) from None


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"pairs_{number:06d}.safetensors"


def write_shard(path: Path, drawn: Candidates, lengths: Tensor) -> None:
    """Store the best and the worst of K candidates per caption, or nothing at all."""
    rows = torch.arange(len(lengths), device=drawn.rewards.device)
    chosen = {"best": drawn.rewards.argmax(dim=1), "worst": drawn.rewards.argmin(dim=1)}
    tensors = {
        name: torch.cat(
            [m[:n] for m, n in zip(drawn.raw[rows, index], lengths.tolist(), strict=True)]
        )
        for name, index in chosen.items()
    }
    tensors["rewards"] = drawn.rewards
    with atomic_write(path) as temporary:
        save_file({k: v.float().cpu().contiguous() for k, v in tensors.items()}, temporary)


class PairStore:
    """A complete folder of pairs; motions are read when they are needed.

    Raises UserError when a file is missing, damaged, or of another run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.index = Path(folder), PairIndex.read(Path(folder))
        missing = [
            path.name
            for path in (shard_path(self.folder, n) for n in range(len(self.index.shards)))
            if not path.is_file()
        ]
        if missing:
            raise UserError(
                f"{folder} lacks {len(missing)} of {len(self.index.shards)} files of pairs "
                f"({missing[0]}); finish it with {PREPARE} --resume"
            )
        self.rewards = torch.cat([self._check(n) for n in range(len(self.index.shards))])
        self.rows = {(key.clip, key.caption): row for row, key in enumerate(self.index.keys)}

    @cached_property
    def starts(self) -> list[int]:
        """First row of every pair in the motions of its file."""
        starts = []
        for shard in self.index.shards:
            position = 0
            for key in shard:
                starts.append(position)
                position += key.length
        return starts

    def check(self, data: MotionDataset, generator: MotionGenerator) -> None:
        """Raises UserError unless these are pairs for the clips of `data`, of this width."""
        width = generator.stats.feature_dim
        if self.index.feature_dim != width:
            raise UserError(
                f"the pairs of {self.folder} have {self.index.feature_dim} features, the model has "
                f"{width}; generate pairs with this model: {PREPARE}"
            )
        lengths = {
            (entry.name, caption.text): unit_length(entry.length, single=True)
            for entry in data.entries
            for caption in entry.captions
        }
        for key in self.index.keys:
            if lengths.get((key.clip, key.caption)) != key.length:
                raise UserError(
                    f"{self.folder} holds pairs for dataset {self.index.dataset}; its clip "
                    f"{key.clip} of {key.length} frames with the caption {key.caption!r} is not in "
                    f"the training split of {data.folder.path}"
                )

    def restrict(self, data: MotionDataset) -> MotionDataset:
        """The clips and captions of `data` that have pairs."""
        entries = []
        for entry in data.entries:
            kept = tuple(c for c in entry.captions if (entry.name, c.text) in self.rows)
            if kept:
                entries.append(replace(entry, captions=kept))
        return MotionDataset(
            data.folder, data.packed, entries, data.stats, data.annotations, data.random_items
        )

    def load(self, row: int) -> tuple[Tensor, Tensor]:
        """Best and worst raw motion ``[L, D]`` of pair `row`."""
        number, start = row // self.index.options["batch_size"], self.starts[row]
        rows = slice(start, start + self.index.keys[row].length)
        path = shard_path(self.folder, number)
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_slice("best")[rows], file.get_slice("worst")[rows]
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from None

    def lookup(self, batch: MotionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Best and worst raw motions ``[B, T, D]`` with the frames of `batch`, rewards ``[B, K]``.

        Where the batch holds a shorter crop, frames beyond its length may be those of the motion.
        """
        rows = [self.rows[key] for key in zip(batch.names, batch.captions, strict=True)]
        device, frames = batch.motion.device, batch.motion.shape[1]
        pairs = [[match_frames(m[None], frames) for m in self.load(row)] for row in rows]
        best, worst = (torch.cat(motions).to(device) for motions in zip(*pairs, strict=True))
        return best, worst, self.rewards[rows].to(device)

    def _check(self, number: int) -> Tensor:
        """The rewards ``[n, K]`` of a file whose motions have the shape that the index says."""
        path, keys = shard_path(self.folder, number), self.index.shards[number]
        shape = [sum(key.length for key in keys), self.index.feature_dim]
        try:
            with safe_open(path, framework="pt") as file:
                rewards = file.get_tensor("rewards")
                found = [file.get_slice(name).get_shape() for name in ("best", "worst")]
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from None
        expected = (len(keys), self.index.options["num_candidates"])
        if found != [shape, shape] or rewards.shape != expected:
            raise _damaged(path, "its shapes are not those of the index")
        return rewards


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(f"{path} is damaged ({reason}); delete it and run {PREPARE} --resume")


@dataclass
class FixedPairs:
    """Pairs of a `PairStore`: its worst motions against its best ones or the dataset's clips.

    A stored motion is as long as its clip; where the batch holds a shorter crop, so is the motion.
    """

    policy: MotionGenerator
    reward: Reward
    store: PairStore
    pairing: Pairing

    @torch.no_grad()
    def __call__(
        self, batch: MotionBatch, condition: Condition, rng: torch.Generator | None
    ) -> PreferenceBatch:
        """Look the pairs up; nothing is drawn."""
        stats = self.policy.stats
        best, worst, rewards = self.store.lookup(batch)
        padding = ~batch.mask.unsqueeze(-1)
        if self.pairing.preferred == "fixed":
            preferred = stats.normalize(best).masked_fill(padding, 0.0)
            reward_preferred = rewards.amax(dim=1)
        else:
            preferred = batch.motion
            raw = stats.denormalize(batch.motion)
            reward_preferred = self.reward.score(raw, batch.lengths, batch.captions)
        return PreferenceBatch(
            preferred=preferred,
            unpreferred=stats.normalize(worst).masked_fill(padding, 0.0),
            lengths=batch.lengths,
            condition=condition,
            reward_preferred=reward_preferred,
            reward_unpreferred=rewards.amin(dim=1),
            reward_candidates=rewards,
            similarity=None,
            use_unpreferred=torch.ones_like(batch.lengths, dtype=torch.bool),
        )
