"""What a run reads, as digests of the content: a resumed run must read the same, wherever it lies.

The dataset's is that of its packed form, which opening it has computed; the reward's is that of the
loaded weights. Neither reads a file again.
"""

import hashlib
from collections.abc import Iterator, Mapping

from torch import nn

from data_loaders.humanml import MotionDataset
from data_loaders.normalizer import Statistics
from rewards.co_embedding_reward import EvaluatorReward
from rewards.seam import Reward
from rewards.weighted import WeightedReward
from train.run_state import weights_digest
from utils.errors import UserError

DATASET, REWARD = "dataset", "reward"
CHANGED = {
    DATASET: "the dataset (--data_dir) holds other clips, captions, splits or statistics",
    REWARD: "the reward (--reward_path and the like) holds other weights or statistics",
}


def fingerprints(*splits: MotionDataset, reward: Reward | None = None) -> dict[str, str]:
    """SHA-256 of the dataset's splits and, where there is one, of the reward."""
    found = {DATASET: _digest(split.digest for split in splits)} if splits else {}
    return found if reward is None else found | {REWARD: _digest(_judges(reward))}


def check_unchanged(stored: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises UserError where something is not what the run was begun with; what either lacks,
    being of another version, is not compared."""
    for name in stored.keys() & found.keys():
        if stored[name] != found[name]:
            raise UserError(
                f"--resume: {CHANGED[name]} than those that this run was begun with; name those, "
                "or begin another run in another --save_dir"
            )


def _judges(reward: Reward) -> Iterator[str]:
    """Of every part of a reward: its kind, and its weights and statistics where it has any."""
    if isinstance(reward, WeightedReward):
        for part in reward.rewards:
            yield from _judges(part)
        return
    yield type(reward).__name__
    judge = reward.embedder if isinstance(reward, EvaluatorReward) else getattr(reward, "model", 0)
    network = getattr(judge, "evaluators", judge)
    if isinstance(network, nn.Module):
        yield weights_digest(network)
    if isinstance(stats := getattr(judge, "stats", None), Statistics):
        yield from (vector.cpu().numpy().tobytes().hex() for vector in (stats.mean, stats.std))


def _digest(parts: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
