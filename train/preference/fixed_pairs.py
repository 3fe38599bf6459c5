"""Pairs generated beforehand: their folder, and the pair source that reads it.

    FOLDER/index.json                what was generated for what, with which options
    FOLDER/pairs_NNNNNN.safetensors  captions [N * batch_size, (N + 1) * batch_size) of the index:
        best, worst   raw features of the motions, one after the other, float32 [sum of lengths, D]
        rewards       of all K candidates, float32 [captions, K]
        best_ids, worst_ids   the same motions as tokens, where the generator makes them of tokens:
                      int16 [captions, n, Q], -1 beyond a motion. To decode and encode them again
                      would change them

`prepare.preference_pairs` writes it. Offline DPO reads the worst motions, MoDiPO both.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data_loaders.humanml import MotionDataset, unit_length
from data_loaders.skeleton import Skeleton
from model.seam import Generator, Samples
from model.text.condition import Condition
from rewards.seam import Reward
from train.preference.gate import GateDecision
from train.preference.methods import Pairing
from train.preference.pairs import Candidates, Key, PreferenceBatch, captions_of
from utils.errors import UserError
from utils.files import atomic_write, read_json, write_json
from utils.masks import match_frames, zero_padding
from utils.provenance import provenance
from utils.seals import ROOM, check_seal

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


def write_shard(path: Path, drawn: Candidates) -> None:
    """Store the best and the worst of K candidates per caption, or nothing at all."""
    rows = {
        "best": drawn.rows(drawn.rewards.argmax(dim=1)),
        "worst": drawn.rows(drawn.rewards.argmin(dim=1)),
    }
    tensors = {}
    for name, index in rows.items():
        chosen = drawn.raw[index]
        parts = zip(chosen.x, chosen.frames.tolist(), strict=True)
        tensors[name] = torch.cat([motion[:length] for motion, length in parts]).float()
        if not drawn.samples.x.is_floating_point():
            tensors[f"{name}_ids"] = drawn.samples.x[index].short()
    tensors["rewards"] = drawn.rewards.float()
    with atomic_write(path) as temporary:
        contiguous = {k: v.cpu().contiguous() for k, v in tensors.items()}
        save_file(contiguous, temporary, ROOM)


@dataclass(frozen=True)
class StoredPairs:
    """Raw best and worst samples (B each), the rewards ``[B, K]`` of all K, and the ids
    ``[B, n, Q]`` of best and worst where they were made of tokens."""

    best: Samples
    worst: Samples
    rewards: Tensor
    best_ids: Tensor | None = None
    worst_ids: Tensor | None = None

    @property
    def best_reward(self) -> Tensor:
        """Of the best samples ``[B]``."""
        return self.rewards.amax(dim=1)

    @property
    def worst_reward(self) -> Tensor:
        """Of the worst samples ``[B]``."""
        return self.rewards.amin(dim=1)


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

    def check(self, data: MotionDataset, skeleton: Skeleton | None) -> None:
        """Raises UserError unless these are pairs for the clips of `data`, of this skeleton."""
        width = skeleton.feature_dim if skeleton else 0
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

    @cached_property
    def ids(self) -> Tensor | None:
        """Ids ``[pairs, 2, n, Q]`` of the best and the worst motions; None where there are none.

        Raises UserError where the files do not agree with each other or with the index.
        """
        parts = [self._read_ids(number) for number in range(len(self.index.shards))]
        found = [part for part in parts if part is not None]
        if not found:
            return None
        rows, shapes = sum(map(len, found)), {part.shape[1:] for part in found}
        if rows != len(self.index.keys) or len(shapes) > 1:
            raise UserError(
                f"{self.folder} holds ids of tokens for {rows} of {len(self.index.keys)} pairs, of "
                f"{len(shapes)} shapes; generate the pairs again: {PREPARE} --overwrite"
            )
        return torch.cat(found)

    def _read_ids(self, number: int) -> Tensor | None:
        path = shard_path(self.folder, number)
        try:
            with safe_open(path, framework="pt") as file:
                if not {"best_ids", "worst_ids"} <= set(file.keys()):
                    return None
                return torch.stack([file.get_tensor(f"{n}_ids") for n in ("best", "worst")], dim=1)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise _damaged(path, error) from None

    def check_ids(self, tokens: int, layers: int, codes: int) -> None:
        """Raises UserError unless every pair has ids of so many layers and codes."""
        if self.ids is None:
            raise UserError(
                f"the pairs of {self.folder} hold no ids of tokens, so this model cannot learn "
                f"from the motions as they were drawn; generate pairs with it: {PREPARE}"
            )
        low, high = int(self.ids.min()), int(self.ids.max())
        if self.ids.shape[2:] != (tokens, layers) or low < -1 or high >= codes:
            raise UserError(
                f"{self.folder} holds ids from {low} to {high} of {self.ids.shape[3]} layers, the "
                f"model has {layers} layers of {codes} codes; generate pairs with it: {PREPARE}"
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

    def lookup(self, keys: Sequence[Key], like: Samples) -> StoredPairs:
        """The pairs of these clips and captions, cut to the lengths ``[B]`` of their crops."""
        lengths, rows = like.frames, [self.rows[key.clip, key.caption] for key in keys]
        frames, device = int(lengths.max()), lengths.device
        pairs = [[match_frames(m[None], frames) for m in self.load(row)] for row in rows]
        best, worst = (
            Samples(zero_padding(torch.cat(motions).to(device), lengths), lengths)
            for motions in zip(*pairs, strict=True)
        )
        if self.ids is None:
            return StoredPairs(best, worst, self.rewards[rows].to(device))
        ids = self.ids[rows].long().to(device)
        return StoredPairs(best, worst, self.rewards[rows].to(device), ids[:, 0], ids[:, 1])

    def _check(self, number: int) -> Tensor:
        """The rewards ``[n, K]`` of a file whose motions have the shape that the index says."""
        path, keys = shard_path(self.folder, number), self.index.shards[number]
        shape = [sum(key.length for key in keys), self.index.feature_dim]
        try:
            check_seal(path)
            with safe_open(path, framework="pt") as file:
                rewards = file.get_tensor("rewards")
                found = [file.get_slice(name).get_shape() for name in ("best", "worst")]
        except (SafetensorError, OSError, UserError) as error:
            raise _damaged(path, error) from None
        expected = (len(keys), self.index.options["num_candidates"])
        if found != [shape, shape] or rewards.shape != expected:
            raise _damaged(path, "its shapes are not those of the index")
        return rewards


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(f"{path} is damaged ({reason}); delete it and run {PREPARE} --resume")


class Store(Protocol):
    """Where pairs are looked up."""

    def lookup(self, keys: Sequence[Key], like: Samples) -> StoredPairs:
        """The pairs of these keys, as long as the samples of `like` where these have lengths."""


@dataclass
class FixedPairs:
    """Pairs of a store: its worst samples against its best ones or the dataset's clips.

    A stored motion is as long as its clip; where the batch holds a shorter crop, so is the motion.
    """

    policy: Generator
    reward: Reward
    store: Store
    pairing: Pairing

    @torch.no_grad()
    def __call__(
        self,
        winners: Samples,
        keys: Sequence[Key],
        condition: Condition,
        rng: torch.Generator | None,
    ) -> PreferenceBatch:
        """Look the pairs up; nothing is generated."""
        stored = self.store.lookup(keys, winners)
        if self.pairing.preferred == "fixed":
            preferred = self._own(stored.best, stored.best_ids, winners, rng)
            reward_preferred = stored.best_reward
        else:
            preferred = winners
            reward_preferred = self.reward.score(self.policy.decode(winners), captions_of(keys))
        always = torch.ones(len(winners), dtype=torch.bool, device=winners.x.device)
        return PreferenceBatch(
            preferred=preferred,
            unpreferred=self._own(stored.worst, stored.worst_ids, winners, rng),
            condition=condition,
            gate=GateDecision(always, None),
            reward_preferred=reward_preferred,
            reward_unpreferred=stored.worst_reward,
            reward_candidates=stored.rewards,
        )

    def _own(
        self, raw: Samples, ids: Tensor | None, winners: Samples, rng: torch.Generator | None
    ) -> Samples:
        """Stored motions in the generator's space: encoded, or the ids as they were drawn."""
        if ids is None or winners.x.is_floating_point():
            return self.policy.encode(raw, rng)
        beyond = winners.x[..., :1] < 0  # the crop of the batch may be shorter
        return Samples(ids.masked_fill(beyond, -1), winners.lengths)
