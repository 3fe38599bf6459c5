"""Sizes that no network can have are told before anything is read."""

from importlib import import_module

import pytest

from utils.errors import UserError
from utils.options import parse_options


@pytest.mark.parametrize("script", ["train_mdm", "train_tmr"])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--seed -1", "--seed -1 is too small"),
        ("--num_heads 3 --latent_dim 16", "--latent_dim 16 must be even and a multiple"),
        ("--latent_dim 17 --num_heads 1", "--latent_dim 17 must be even"),
        ("--layers 1000000000", "--layers 1000000000 is too large"),
        ("--ff_size 10000000000", "is too large"),
        ("--num_heads 0", "--num_heads 0 is too small"),
    ],
)
def test_impossible_sizes_are_one_line(script: str, words: str, reason: str) -> None:
    options = import_module(f"train.{script}").Options
    with pytest.raises(UserError, match=reason):
        parse_options(options, ["--save_dir", "x", *words.split()])
