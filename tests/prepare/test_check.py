"""The check of assets says what the scripts' own loaders find."""

from pathlib import Path

import pytest

from data_loaders.skeleton import HUMANML, KIT
from prepare import check
from rewards.co_embedding import EvaluatorSizes
from tests.data_loaders.datasets import write_dataset
from tests.model.latent.tiny import tiny_denoiser, tiny_vae, write_upstream
from tests.model.tiny import tiny_generator
from tests.paths import ROOT
from tests.rewards.evaluator_files import TINY, write_evaluators
from tests.rewards.glove import write_glove
from tests.tmr.tiny import tiny_tmr
from utils.errors import UserError
from utils.options import parse_options

KIT_EVALUATORS = EvaluatorSizes(**{**vars(TINY), "features": KIT.feature_dim})


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def complete(empty_folder: Path) -> Path:
    """All that any task on KIT needs, in the default places."""
    tiny_generator(KIT).save(empty_folder / "save" / "kit_trans_enc_512", 400000, None, {})
    lengths = {"00001": 40, "00002": 60}
    write_dataset(empty_folder / "dataset" / "KIT-ML", lengths, skeleton=KIT)
    tiny_tmr(features=KIT.feature_dim).save(empty_folder / "save" / "tmr_kit")
    write_evaluators(empty_folder / "kit", KIT_EVALUATORS)
    write_glove(empty_folder / "glove", width=TINY.word)
    return empty_folder


def missing(task: str, *arguments: str) -> dict[str, str]:
    """The assets of KIT that are missing, with where they were looked for."""
    options = parse_options(check.Options, ["--task", task, "--dataset", "kit", *arguments])
    return {f.asset.name: f.where for f in check.check(options) if not f.there}


@pytest.mark.parametrize("task", check.TASKS)
def test_a_complete_machine_lacks_nothing(complete: Path, task: str) -> None:
    assert missing(task) == {}


@pytest.mark.parametrize(
    ("lost", "task", "asset"),
    [
        ("save/kit_trans_enc_512/model000400000.pt", "generate", "checkpoint"),
        ("save/kit_trans_enc_512/args.json", "generate", "checkpoint"),
        ("dataset/KIT-ML/val.txt", "train", "split val"),
        ("dataset/KIT-ML/test.txt", "evaluate", "split test"),
        ("save/tmr_kit/stats/mean.pt", "train", "reward"),
        ("save/tmr_kit/last_weights/text_encoder.pt", "train", "reward"),
        ("kit/text_mot_match/model/finest.tar", "evaluate", "evaluators"),
        ("kit/Comp_v6_KLD005/meta/std.npy", "evaluate", "evaluators"),
        ("glove/our_vab_idx.pkl", "evaluate", "evaluators"),
    ],
)
def test_a_lost_file_is_named_with_its_place(
    complete: Path, lost: str, task: str, asset: str
) -> None:
    (complete / lost).unlink()
    assert Path(lost).name in missing(task)[asset]


def test_a_task_asks_only_for_what_it_uses(complete: Path) -> None:
    for name in ("kit/text_mot_match/model/finest.tar", "save/tmr_kit/config.json"):
        (complete / name).unlink()
    assert missing("generate") == {}
    assert set(missing("train")) == {"reward"}
    assert set(missing("evaluate")) == {"evaluators"}


def test_a_damaged_file_is_missing_too(complete: Path) -> None:
    for name in ("kit/text_mot_match/model/finest.tar", "save/kit_trans_enc_512/stats.npz"):
        (complete / name).write_bytes(b"PK")
    assert set(missing("evaluate")) == {"evaluators", "statistics"}


def test_the_published_kit_reward_does_not_fit_kit(complete: Path) -> None:
    tiny_tmr(features=HUMANML.feature_dim).save(complete / "published")
    reason = missing("train", "--reward_path", "published")["reward"]
    assert "another representation" in reason


def test_other_places_are_searched_where_told(complete: Path) -> None:
    (complete / "dataset" / "KIT-ML").rename(complete / "data")
    (complete / "kit").rename(complete / "judges")
    assert set(missing("evaluate")) == {"split test", "evaluators"}
    assert missing("evaluate", "--data_dir", "data", "--evaluator_dir", "judges") == {}


@pytest.mark.parametrize("dataset", ["humanml", "kit"])
@pytest.mark.parametrize("task", check.TASKS)
def test_every_command_of_the_table_exists(dataset: str, task: str) -> None:
    findings = check.check(parse_options(check.Options, ["--task", task, "--dataset", dataset]))
    table = check.format_findings(findings)
    assert not any(finding.there for finding in findings)
    assert table.count("MISSING") == table.count("->") == len(findings)
    for word in table.split():
        if word.endswith(".sh"):
            assert (ROOT / word).is_file(), word
    assert "python -m train.train_tmr --dataset kit" in table or (dataset, task) != ("kit", "train")


def test_the_exit_code_follows(complete: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["check", "--dataset", "kit"])
    with pytest.raises(SystemExit) as code:
        check.main()
    assert code.value.code == 0
    assert "everything for --task generate --dataset kit is there" in capsys.readouterr().out
    (complete / "save" / "kit_trans_enc_512" / "args.json").unlink()
    with pytest.raises(SystemExit) as code:
        check.main()
    assert code.value.code == 1
    assert "assets are missing" in capsys.readouterr().out


def test_published_latent_models_have_places_of_their_own(empty_folder: Path) -> None:
    arguments = ["--task", "generate", "--model", "mld_star"]
    found = {f.asset.name: f for f in check.check(parse_options(check.Options, arguments))}
    assert "mld_humanml_v1.ckpt does not exist" in found["checkpoint"].where
    assert found["checkpoint"].asset.command == "bash prepare/download_mld.sh"
    assert "sentence-T5" in found["text encoder"].where
    path = empty_folder / "save" / "motionlcm" / "mld_humanml" / "mld_humanml_v1.ckpt"
    path.parent.mkdir(parents=True)
    write_upstream(path, tiny_vae(), tiny_denoiser())
    found = {f.asset.name: f for f in check.check(parse_options(check.Options, arguments))}
    assert found["checkpoint"].there
    path.write_bytes(b"no checkpoint")
    found = {f.asset.name: f for f in check.check(parse_options(check.Options, arguments))}
    assert not found["checkpoint"].there
    with pytest.raises(UserError, match="published for humanml alone"):
        parse_options(check.Options, [*arguments, "--dataset", "kit"])
