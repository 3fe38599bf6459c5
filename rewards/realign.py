"""ReAlign's step-aware reward as a judge of finished motions.

It reads features in the dataset's normalisation, so unlike TMR's published models it can judge
KIT-ML's 251. Its file's name tells the mode, M{0,1}T{0,1}: whether the motion and the text tower
were told the step of the noise. Clean motions are step 0.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import Skeleton
from model.layers import length_mask
from model.seam import Samples
from model.text.condition import TextEncoder
from model.text.encoders import CachedTextEncoder
from model.text.sentence_vectors import SENTENCE_T5, T5TokenEncoder
from model.text.word_tokens import BuiltinEncoder
from model.weights import load_strictly
from rewards.realign_network import RealignConfig, RealignNetwork
from rewards.retrieval import RetrievalReward
from rewards.seam import check_width
from tmr.retrieval import retrieval_in_pools
from utils.errors import UserError
from utils.files import save_tensors
from utils.options import option
from utils.unpickle import load_tensors_only

STEPS = ("clean", "none", "noisy")
MODES = ("M0T0", "M0T1", "M1T0", "M1T1")
WORDS = "words"  # ours, beside the weights: the token encoder, where it is not sentence-T5
BEST = "best"  # how the file of the best on val begins in the folder of a run
SHARED_NORM = ("motion_encoder.norm", "text_encoder.norm")


@dataclass
class RealignOptions:
    """For every script that scores with a reward of ReAlign."""

    realign_path: str = option(
        "", "file or run folder of a reward of ReAlign, for --reward realign", free="resume"
    )
    realign_text_encoder_path: str = option(
        "", "local folder of sentence-T5-large, for ReAlign; none = the hub's", free="resume"
    )
    reward_mode: str = option(
        "",
        "which towers of ReAlign's reward are told the step; none = what its file's name says",
        choices=("", *MODES),
    )
    reward_step: str = option(
        "clean",
        "what they are told: clean = step 0, none = nothing, noisy = the step of noised motions, "
        "and 0 of finished ones",
        choices=STEPS,
    )


@dataclass(frozen=True)
class StepMode:
    """Which towers are told the step."""

    motion: bool
    text: bool

    @property
    def name(self) -> str:
        return f"M{int(self.motion)}T{int(self.text)}"

    @staticmethod
    def parse(name: str, where: str) -> "StepMode":
        """From a file's name, where the last of several counts: a refined model names its start.

        Raises UserError, which begins with `where`, when there is none.
        """
        found = re.findall(r"M([01])T([01])", name)
        if not found:
            raise UserError(
                f"{where} does not say which towers are told the step (M1T0 and the like); pass "
                "--reward_mode"
            )
        motion, text = found[-1]
        return StepMode(motion == "1", text == "1")


class RealignModel(nn.Module):
    """Takes raw (un-normalised) motions and captions; it owns statistics and token encoder.

    step: ``clean`` tells the towers of the mode step 0, ``none`` tells nobody, ``noisy`` takes the
    steps of noised motions with each call.
    """

    def __init__(
        self,
        network: RealignNetwork,
        stats: Statistics,
        words: TextEncoder,
        mode: StepMode,
        step: str = "clean",
    ) -> None:
        super().__init__()
        if stats.feature_dim != network.config.num_features:
            raise UserError(
                f"this reward of ReAlign takes motions of {network.config.num_features} features, "
                f"the dataset's have {stats.feature_dim}; there is one file for each dataset"
            )
        if words.width != network.config.text_dim:
            raise UserError(
                f"this reward of ReAlign reads text tokens of width {network.config.text_dim}, the "
                f"encoder gives {words.width}; pass --realign_text_encoder_path with {SENTENCE_T5}"
            )
        if step == "noisy" and not (mode.motion or mode.text):
            raise UserError(
                f"--reward_step noisy: this reward ({mode.name}) has no step token; use none"
            )
        self.network, self.stats, self.words, self.mode = network, stats, words, mode
        self.step = step

    @property
    def device(self) -> torch.device:
        return self.network.global_motion_token.device

    def told(self, tower: bool, rows: int, steps: Tensor | None) -> Tensor | None:
        """What a tower, which the mode tells the step or not, hears for `rows` samples."""
        if not tower or self.step == "none":
            return None
        if self.step == "noisy" and steps is not None:
            return steps.to(self.device)
        return torch.zeros(rows, device=self.device)

    def normalize(self, motions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Raw ``[B, T, D]`` -> normalised, zero beyond the lengths ``[B]``; and the mask."""
        motions = motions[:, : int(lengths.max())].to(self.device)
        mask = length_mask(lengths.to(self.device), motions.shape[1])
        return self.stats.normalize(motions).masked_fill(~mask.unsqueeze(-1), 0.0), mask

    def encode_motions(
        self, motions: Tensor, lengths: Tensor, steps: Tensor | None = None
    ) -> Tensor:
        """Mean latents ``[B, d]`` of raw motions; steps ``[B]`` of noised ones."""
        normalised, mask = self.normalize(motions, lengths)
        told = self.told(self.mode.motion, len(motions), steps)
        return self.network.motion_distribution(normalised, mask, told).mean

    def encode_texts(self, captions: list[str], steps: Tensor | None = None) -> Tensor:
        """Mean latents ``[B, d]``."""
        condition = self.words.encode(captions).to(self.device)
        told = self.told(self.mode.text, len(captions), steps)
        return self.network.text_distribution(condition.tokens, condition.mask, told).mean

    def save(self, path: Path, words: str, network: nn.Module | None = None) -> Path:
        """Write ``{state_dict, words}``, of other weights where given; the mode belongs into the
        file's name."""
        state = (network or self.network).state_dict()
        state = {key: value.detach().cpu() for key, value in state.items()}
        save_tensors(path, {"state_dict": state, WORDS: words})
        return path


class RealignReward(RetrievalReward[RealignModel]):
    """The latents are the means of ReAlign's towers."""

    def __init__(self, model: RealignModel) -> None:
        super().__init__(model.eval().requires_grad_(False))

    @staticmethod
    def load(
        path: str | Path,
        stats: Statistics,
        device: torch.device | str = "cpu",
        text_encoder_path: str = "",
        mode: str = "",
        step: str = "clean",
    ) -> "RealignReward":
        """A published or own file as a reward of motions that `stats`, the dataset's, normalise.

        `mode` overrides what the file's name says. Raises UserError for whatever is missing or
        does not fit.
        """
        path = find_file(Path(path))
        state, content = read_state(path)
        where = f"--reward_mode {mode}" if mode else path.name
        found = StepMode.parse(mode or path.name, where)
        network = load_network(state, str(path))
        words: TextEncoder
        if content.get(WORDS) == "builtin":
            words = BuiltinEncoder()
        else:
            words = T5TokenEncoder(text_encoder_path or SENTENCE_T5, device)
        network = network.to(device)
        stats = replace(stats, name="reward_stats").to(device)
        return RealignReward(RealignModel(network, stats, CachedTextEncoder(words), found, step))

    def check(self, skeleton: Skeleton | None) -> None:
        width = self.model.stats.feature_dim
        check_width("this reward of ReAlign", width, skeleton, "there is one file for each dataset")


def find_file(path: Path) -> Path:
    """A file as it is; of a run's folder the best on val. Raises UserError when there is none."""
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"{BEST}_*.pth"))
    if len(found) != 1:
        raise UserError(f"{path} holds {len(found)} files {BEST}_*.pth of a reward of ReAlign")
    return found[0]


def read_state(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The network's tensors, without those of text encoders, and all that the file holds.

    Raises UserError when the file is missing, unsafe or holds something else.
    """
    content = load_tensors_only(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{path} is no reward of ReAlign: it has no state_dict")
    return {k: v for k, v in state.items() if "clip" not in k and not k.startswith("xlm.")}, content


def load_network(state: Mapping[str, Tensor], where: str) -> RealignNetwork:
    """All sizes follow from the tensors. Raises UserError, which begins with `where`."""
    try:
        config = RealignConfig.of_state(state)
    except (KeyError, IndexError) as error:
        raise UserError(f"{where} is no reward of ReAlign: it lacks {error}") from None
    network = RealignNetwork(config)
    load_strictly(network, state, where)
    motion, text = SHARED_NORM
    for name in ("weight", "bias"):
        if not torch.equal(state[f"{motion}.{name}"], state[f"{text}.{name}"]):
            raise UserError(f"{where}: {motion} and {text} differ, but are one layer")
    return network


@dataclass(frozen=True)
class StepRetrieval:
    """Share of captions that find their motion among 32, with step 0 told and with no step."""

    clean: float
    none: float


def measure_steps(
    reward: RealignReward, motions: Tensor, lengths: Tensor, captions: list[str]
) -> StepRetrieval:
    """R@1 of raw motions ``[N, T, D]`` by their captions, for both choices of the step.

    A wrong choice is silent otherwise; warns where the reward's own is the worse one. Raises
    ValueError for fewer than 8 distinct captions.
    """
    shares, model = {}, reward.model
    for step in ("clean", "none"):
        judge = RealignReward(
            RealignModel(model.network, model.stats, model.words, model.mode, step)
        )
        texts, latents = judge.embed_texts(captions), judge.embed(Samples(motions, lengths))
        shares[step] = retrieval_in_pools(texts, latents, captions).r_at_1
    chosen = "none" if model.step == "none" else "clean"
    better = max(shares, key=lambda step: shares[step])
    if shares[better] > shares[chosen]:
        warnings.warn(
            f"this reward of ReAlign finds {100 * shares[chosen]:.1f} % of the motions with "
            f"--reward_step {chosen}, and {100 * shares[better]:.1f} % with {better}",
            stacklevel=2,
        )
    return StepRetrieval(**shares)
