"""What preference optimisation of tokens needs besides: options of its own, and what it refuses.

docs/method.md says what each option means for masked tokens.
"""

from dataclasses import replace

from model.families import MotionFamily
from model.momask.generator import MoMaskGenerator
from train.preference.fixed_pairs import PairStore
from train.preference.options import PreferenceOptions
from utils.errors import UserError

MASKS = 4  # masks per pair: a motion has few tokens, so they cost little


def with_token_options(policy: MotionFamily, options: PreferenceOptions) -> MotionFamily:
    """MoMask with the masks and the weight that the options ask for; others as they are.

    Raises UserError for options that have no counterpart in the generator's family.
    """
    if isinstance(policy, MoMaskGenerator):
        _refuse_diffusion(options)
        weighting = "elbo" if options.omega == "elbo" else "constant"
        masks = options.mask_samples or MASKS
        return replace(policy, mask_samples=masks, weighting=weighting)
    if options.mask_samples is not None:
        raise UserError("--mask_samples: this model is no model of tokens, so it hides none")
    if options.omega == "elbo":
        raise UserError(
            "--omega elbo weighs the number of hidden tokens, and this model has none; use constant"
        )
    return policy


def _refuse_diffusion(options: PreferenceOptions) -> None:
    if options.omega == "snr":
        raise UserError(
            "--omega snr: hidden tokens have no signal-to-noise ratio; use constant, or elbo for "
            "the exact weight of their number"
        )
    if options.similarity_space == "features":
        raise UserError(
            "--similarity_space features: the ids of tokens are names, whose cosine says nothing; "
            "use reward"
        )
    if options.loser_min_t and options.mask_samples != 1:
        raise UserError(
            "--loser_min_t: the masks of one pair lie at all levels, high and low; add "
            "--mask_samples 1"
        )


def check_token_pairs(policy: MotionFamily, store: PairStore) -> None:
    """Raises UserError unless fixed pairs for MoMask hold ids, and ids that it has."""
    if isinstance(policy, MoMaskGenerator):
        vocabulary = policy.parts.tokens.vocabulary
        store.check_ids(policy.levels, vocabulary.layers, vocabulary.codes)
