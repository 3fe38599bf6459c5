"""The figures of one row, and how seeds share a row."""

from dataclasses import replace

import pytest

from data_loaders.annotations import Annotations, CaptionNote, ClipNote
from data_loaders.humanml import open_dataset
from data_loaders.skeleton import HUMANML, KIT
from eval.judging import Figures, embed, format_table, judge_motions
from eval.motion_sets import SampledOptions, load_model, real_motions
from rewards.tmr import TMRReward
from tests.data_loaders.datasets import caption_line, write_dataset
from tests.sample.checkpoints import write_tiny_checkpoint
from tests.tmr.tiny import tiny_tmr
from utils.errors import UserError

ROW = Figures(
    reward=0.7,
    r_at_1=0.5,
    r_at_2=0.6,
    r_at_3=0.7,
    r_at_1_split=0.1,
    r_at_1_hard=None,
    hard_chance=None,
    fid=0.01,
    facts=0.8,
    side_facts=0.75,
    foot_skating=0.1,
    invalid_motions=0,
)


def test_one_seed_has_no_interval_and_undefined_figures_are_dashes() -> None:
    row = format_table({"base": [ROW]}).splitlines()[-1]
    assert "±" not in row
    assert "| - |" in row


def test_seeds_of_one_name_share_a_row() -> None:
    table = format_table({"base": [ROW], "sopo": [ROW, replace(ROW, reward=0.9)]})
    rows = table.splitlines()
    assert len(rows) == 4
    # half the interval of 0.7 and 0.9: 12.706 x 0.1
    assert rows[-1].startswith("| sopo | 0.800 ± 1.271 |")


def test_compile_reaches_the_generator(tmp_path) -> None:
    path = str(write_tiny_checkpoint(tmp_path / "tiny"))
    for compile in (True, False):
        options = SampledOptions(device="cpu", compile=compile)
        assert load_model(path, options, HUMANML).compiled is compile


def test_names_must_match_the_checkpoints() -> None:
    options = SampledOptions(model_path=["a.pt", "b.pt"], names=["a"])
    with pytest.raises(UserError, match="1 names for 2 checkpoints"):
        options.validate()


def judge_small_split(folder, count: int) -> Figures:
    """The real row of a set of `count` clips in families of two."""
    texts = {f"{i:06d}": f"someone does thing {chr(97 + i)}" for i in range(count)}
    lines = {name: caption_line(text) for name, text in texts.items()}
    write_dataset(folder, dict.fromkeys(texts, 24), lines, skeleton=KIT)
    clips = {name: ClipNote(f"family {int(name) // 2}") for name in texts}
    notes = {text: CaptionNote((), text) for text in texts.values()}
    Annotations(notes, clips).save(folder)
    data = open_dataset("own", "test", str(folder), random_items=False)
    judge, motions = TMRReward(tiny_tmr(features=251)), real_motions(data, 8)
    return judge_motions(motions, embed(judge, motions), data, judge, judge, seed=0)


def test_hard_pools_that_a_split_cannot_fill_are_left_out(tmp_path) -> None:
    figures = judge_small_split(tmp_path / "data", 12)
    assert (figures.r_at_1_hard, figures.hard_chance, figures.fid) == (None, None, None)
    assert 0 <= figures.r_at_1 <= figures.r_at_3 <= 1


def test_a_split_without_any_pool_is_told(tmp_path) -> None:
    with pytest.raises(UserError, match="too small to judge"):
        judge_small_split(tmp_path / "data", 4)
