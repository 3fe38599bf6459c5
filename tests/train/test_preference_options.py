"""Options of preference optimisation and of reward back-propagation that exclude each other."""

import pytest

from train.preference.methods import METHODS, needs_fixed_pairs
from train.preference.options import PreferenceOptions
from train.reward_backprop.options import BackpropOptions
from utils.errors import UserError

FIXED = {"offline_dpo", "combined_dpo", "modipo_t", "modipo_g"}


def test_the_methods_that_read_fixed_pairs() -> None:
    assert {method for method in METHODS if needs_fixed_pairs(method)} == FIXED


@pytest.mark.parametrize("method", METHODS)
def test_pairs_belong_to_the_methods_that_read_them(method: str) -> None:
    without = PreferenceOptions(method=method)
    with_pairs = PreferenceOptions(method=method, pairs_path="pairs")
    good, bad = (with_pairs, without) if method in FIXED else (without, with_pairs)
    good.validate()
    message = "needs --pairs_path FOLDER" if method in FIXED else "reads no fixed pairs"
    with pytest.raises(UserError, match=f"--method {method} {message}"):
        bad.validate()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [None, 1, 2])
def test_best_and_worst_need_two_candidates(method: str, count: int | None) -> None:
    pairs = "pairs" if method in FIXED else ""
    options = PreferenceOptions(method=method, pairs_path=pairs, num_candidates=count)
    if count == 1 and method in ("online_dpo", "combined_dpo", "modipo_o"):
        with pytest.raises(UserError, match="num_candidates must be at least 2"):
            options.validate()
    else:
        options.validate()


def test_an_anchored_tau_needs_the_quantile_that_it_anchors() -> None:
    PreferenceOptions(tau_quantile=0.5).validate()
    PreferenceOptions(tau_quantile=0.5, tau_anchored=True).validate()
    with pytest.raises(UserError, match="--tau_anchored needs --tau_quantile"):
        PreferenceOptions(tau_anchored=True).validate()


def test_the_last_steps_are_easytunes_ten_and_refls_one() -> None:
    steps = {m: BackpropOptions(method=m).last_steps for m in ("draft", "refl", "easytune")}
    assert steps == {"draft": 10, "refl": 1, "easytune": 10}
    assert BackpropOptions(backprop_steps=3).last_steps == 3


@pytest.mark.parametrize(
    "good",
    [
        {"method": "draft", "sampling_steps": 10},
        {"method": "refl", "sampling_steps": 20},
        {"method": "refl", "sampling_steps": 20, "backprop_steps": 1},
        {"method": "easytune", "sampling_steps": 4, "backprop_steps": 4},
        {"method": "draft", "sampling_steps": 4, "backprop_steps": 4, "refl_range": 20},
    ],
)
def test_steps_that_fit_are_taken(good: dict) -> None:
    BackpropOptions(**good).validate()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"sampling_steps": 9}, "--backprop_steps 10 exceeds the 9 steps"),
        ({"method": "refl", "sampling_steps": 19}, "--refl_range 20 exceeds the 19 steps"),
        ({"method": "refl", "backprop_steps": 2}, "--method refl differentiates one step"),
        ({"reward": ["evaluator"]}, "--reward evaluator has no gradient here"),
        ({"reward": ["nice"]}, "--reward nice is unknown"),
    ],
)
def test_what_excludes_each_other_is_told(bad: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        BackpropOptions(**bad).validate()
