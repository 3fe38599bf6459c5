"""The options of preference optimisation, whatever the generator and the reward."""

from dataclasses import dataclass

from diffusion.sampling import SAMPLERS, SamplerChoice
from train.preference.methods import METHODS, needs_fixed_pairs
from train.preference.safeguards import SafeguardOptions
from utils.errors import UserError
from utils.options import option

USUAL = "none = as the model usually samples"


@dataclass
class PairedOptions:
    """For every script that pairs the best and the worst candidate."""

    num_candidates: int = option(4, "K samples generated per caption", minimum=2)


@dataclass
class CandidateOptions:
    """How candidates are generated, online and beforehand."""

    num_candidates: int | None = option(
        None,
        "K samples generated per caption; none = 4, of latent models 2, as the paper has it",
        minimum=1,
    )
    candidate_sampler: str | None = option(
        None,
        f"sampler of the candidates; {USUAL}: ancestral for MDM, ddim for MLD",
        choices=SAMPLERS,
    )
    candidate_steps: int | None = option(
        None, f"steps per candidate, 0 = all of the model's; {USUAL}: all, 50 for MLD", minimum=0
    )
    guidance_param: float | None = option(
        None,
        f"guidance scale of the candidates, 1 = off; {USUAL}: 2.5 for MDM, 7.5 for MLD",
        minimum=0,
    )

    @property
    def sampler(self) -> SamplerChoice:
        return SamplerChoice(self.candidate_sampler, self.candidate_steps)


@dataclass
class PreferenceOptions(CandidateOptions, SafeguardOptions):
    method: str = option("sopo", "which pairs, gate and weight", choices=tuple(METHODS))
    pairs_path: str = option(
        "", "folder of fixed pairs, for the methods that read them", free="resume"
    )
    tau: float = option(
        0.45,
        "a candidate is used below this reward; rewards are (cos + 1) / 2, so they lie in [0, 1]",
        minimum=0,
        maximum=1,
    )
    tau_quantile: float | None = option(
        None, "set tau to this quantile of the recent worst-of-K rewards", minimum=0, maximum=1
    )
    beta: float = option(1.0, "weight of the implicit reward", minimum=0)
    preferred_weight_c: float = option(2.0, "C of beta_w = beta (C - S(x_w))", minimum=1)
    similarity_space: str = option("reward", "space of S(x_w)", choices=("reward", "features"))
    margin_scale: float | None = option(
        None, "replaces T in z = -T omega_t (...); none = number of diffusion steps", minimum=0
    )

    mask_samples: int | None = option(
        None, "masks that an error of tokens averages; none = 4 for MoMask", minimum=1
    )

    def validate(self) -> None:
        """Raises UserError for options that exclude each other."""
        if needs_fixed_pairs(self.method) and not self.pairs_path:
            raise UserError(
                f"--method {self.method} needs --pairs_path FOLDER, made with "
                "python -m prepare.preference_pairs"
            )
        if self.tau_anchored and self.tau_quantile is None:
            raise UserError("--tau_anchored needs --tau_quantile, whose rewards it fixes")
        if self.pairs_path and not needs_fixed_pairs(self.method):
            raise UserError(f"--method {self.method} reads no fixed pairs; leave out --pairs_path")
        between = any(pairing.preferred == "best" for pairing in METHODS[self.method])
        if between and self.num_candidates == 1:
            raise UserError(
                f"--method {self.method} compares the best and the worst of K motions; "
                "--num_candidates must be at least 2"
            )
