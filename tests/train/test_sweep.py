"""A sweep end to end on tiny networks, its commands, and every refusal in one line."""

from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.train.scripts import Workspace, contents, run_main, same_weights, sweep_file
from train.picture_sweep import sweep_of
from train.preference.methods import METHODS
from train.sweep_plan import Options, Sweep
from train.train_sopo import PreferenceTask
from utils.errors import UserError
from utils.files import read_json
from utils.options import parse_options

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


def plan(path: Path) -> Sweep:
    return sweep_of(parse_options(Options, ["--config", str(path)]))


def option_of(arguments: list[str], name: str) -> list[str]:
    """The words that follow ``--name``."""
    tail = arguments[arguments.index(f"--{name}") + 1 :]
    ends = [i for i, word in enumerate(tail) if word.startswith("--")]
    return tail[: ends[0]] if ends else tail


def sweep(path: Path, *more: str) -> None:
    run_main("train.sweep", ["--config", str(path), *more])


def test_a_sweep_trains_judges_and_does_nothing_twice(
    workspace: Workspace, tmp_path, started, capsys
) -> None:
    rows = {"sft": {"method": "sft"}, "offline": {"method": "offline_dpo"}}
    judge = {"judge_path": str(workspace.reward), "split": "train"}
    pairs = {"num_captions": 24, "batch_size": 8}
    parts = {"seeds": [1, 2], "pairs": pairs, "evaluation": {"eval_tmr": judge}}
    path = sweep_file(workspace, tmp_path, rows, **parts)
    out = tmp_path / "out"

    sweep(path)
    names = ["sft_seed1", "offline_seed1", "sft_seed2", "offline_seed2"]
    assert [words[0].split(".")[-1] for words in started] == [
        "preference_pairs",
        *["train_sopo"] * 4,
        *["eval_tmr"] * 5,
    ]
    assert [option_of(w, "save_dir") for w in started[1:5]] == [[str(out / n)] for n in names]
    assert all((out / name / "model000000002.pt").is_file() for name in names)
    weights = [out / name / "model000000002.pt" for name in names]
    assert not same_weights(weights[0], weights[2]), "the seeds differ"
    judged = [read_json(out / name / "eval_tmr.json")["rows"] for name in ("base", *names)]
    assert [set(rows) for rows in judged] == [{"real", n} for n in ("base", *names)]
    printed = capsys.readouterr().out
    table = (out / "eval_tmr.md").read_text()
    assert table in printed
    lines = table.splitlines()
    assert [line.split(" | ")[0] for line in lines[4:]] == [
        "| real",
        "| base",
        "| sft",
        "| offline",
    ]
    assert "±" in lines[-1]
    assert "Not finished" not in table

    started.clear()
    sweep(path)
    assert started == []
    printed = capsys.readouterr().out
    assert "0 of 10 commands remain" in printed
    assert table in printed

    started.clear()
    (out / "pairs_tmr" / "pairs_000001.safetensors").unlink()
    sweep(path, "--seeds", "1", "2", "3")
    scripts = ["prepare.preference_pairs", *["train.train_sopo"] * 2, *["eval.eval_tmr"] * 2]
    assert [words[0] for words in started] == scripts, "what is new, or missing"

    with pytest.raises(UserError, match=r"pairs_tmr was made with other options \(--seed 10 -> 11"):
        plan(sweep_file(workspace, tmp_path, rows, **parts | {"pairs": pairs | {"seed": 11}}))


def test_a_run_that_breaks_is_left_out_and_goes_on_to_the_same_weights(
    workspace: Workspace, tmp_path, started, capsys, monkeypatch
) -> None:
    rows = {"sopo": {"save_interval": 1}, "sft": {"method": "sft"}}
    judge = {"judge_path": str(workspace.reward), "split": "train"}
    evaluation = {"eval_tmr": judge}
    (tmp_path / "whole").mkdir()
    sweep(sweep_file(workspace, tmp_path / "whole", {"sopo": rows["sopo"]}))
    path = sweep_file(workspace, tmp_path, rows, evaluation=evaluation)
    out, step = tmp_path / "out", PreferenceTask.step

    def broken(self, batch, number, rng):
        if number == 1 and self.options.method == "sopo":
            raise UserError("out of luck")
        return step(self, batch, number, rng)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(PreferenceTask, "step", broken)
        sweep(path)
    assert end.value.code == 2
    output = capsys.readouterr()
    assert output.err == "error: 1 failed (sopo_seed1); the same command goes on from there\n"
    assert f"sopo_seed1 failed ({out}/logs/sopo_seed1.log): error: out of luck" in output.out
    table = (out / "eval_tmr.md").read_text()
    assert "Not finished: sopo_seed1." in table
    assert set(next(x for x in table.splitlines() if "| sopo" in x).split(" | ")[1:]) <= {
        "-",
        "- |",
    }
    assert (out / "sft_seed1" / "model000000002.pt").is_file()

    started.clear()
    sweep(path)
    assert [words[0] for words in started] == ["train.train_sopo", "eval.eval_tmr"]
    assert started[0][-1] == "--resume"
    name = Path("sopo_seed1", "model000000002.pt")
    assert same_weights(out / name, tmp_path / "whole" / "out" / name)
    assert "Not finished" not in (out / "eval_tmr.md").read_text()


def test_a_run_cut_off_before_its_first_checkpoint_starts_again(
    workspace: Workspace, tmp_path, started
) -> None:
    path = sweep_file(workspace, tmp_path, {"sft": {"method": "sft"}})
    (tmp_path / "out" / "sft_seed1").mkdir(parents=True)
    (tmp_path / "out" / "sft_seed1" / "metrics.jsonl").touch()
    sweep(path)
    assert started[0][-1] == "--overwrite"
    assert (tmp_path / "out" / "sft_seed1" / "model000000002.pt").is_file()


def test_a_dry_run_prints_every_command_and_writes_nothing(
    workspace: Workspace, tmp_path, started, capsys
) -> None:
    evaluation = {"eval_tmr": {"judge_path": str(workspace.reward)}}
    rows = {"sft": {"method": "sft"}, "dpo": {"method": "offline_dpo"}}
    path = sweep_file(workspace, tmp_path, rows, evaluation=evaluation, seeds=[1, 2])
    before = contents(tmp_path)
    sweep(path, "--dry_run")
    assert contents(tmp_path) == before
    assert started == []
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines if line.startswith("    python -m")] == [
        "prepare.preference_pairs",
        *["train.train_sopo"] * 4,
        *["eval.eval_tmr"] * 5,
    ]
    assert lines[-1] == "10 of 10 commands remain"


def test_results_of_other_options_are_refused(workspace: Workspace, tmp_path, started) -> None:
    sweep(sweep_file(workspace, tmp_path, {"sft": {"method": "sft"}}))
    changed = sweep_file(workspace, tmp_path, {"sft": {"method": "sft", "lr": 0.5}})
    with pytest.raises(UserError, match=r"sft_seed1 was made with other options \(--lr 0.001 -> 0"):
        plan(changed)
    elsewhere = sweep_file(
        workspace, tmp_path, {"sft": {"method": "sft"}}, common={"device": "auto"}
    )
    assert plan(elsewhere).runs[0].done, "the device changes no result that matters"


def test_rows_override_common_and_common_overrides_its_file(workspace: Workspace, tmp_path) -> None:
    start = tmp_path / "start.yaml"
    start.write_text("tau_quantile: 0.2\nbeta: 5\nwarmup_steps: 7\n")
    common = {"config": str(start), "beta": 3}
    rows = {"fixed": {"tau_quantile": None, "tau": 0.9}, "scaled": {"beta": 2}, "plain": None}
    fixed, scaled, plain = plan(sweep_file(workspace, tmp_path, rows, common=common)).run_options
    assert (fixed.tau_quantile, fixed.tau, fixed.beta) == (None, 0.9, 3)
    assert (scaled.tau_quantile, scaled.beta, scaled.warmup_steps) == (0.2, 2, 7)
    assert (plain.tau_quantile, plain.beta, plain.method) == (0.2, 3, "sopo")


def test_rows_differ_in_their_own_options_and_seeds_in_the_seed(
    workspace: Workspace, tmp_path
) -> None:
    rows = {"a": {"method": "dsopo"}, "b": {"method": "usopo"}}
    runs = plan(sweep_file(workspace, tmp_path, rows, seeds=[4, 9])).runs
    assert [run.title for run in runs] == ["a_seed4", "b_seed4", "a_seed9", "b_seed9"]

    def differ(first: int, second: int) -> list[str]:
        pairs = zip(runs[first].arguments, runs[second].arguments, strict=True)
        return [b for a, b in pairs if a != b]

    out = tmp_path / "out"
    assert differ(0, 1) == ["usopo", str(out / "b_seed4")]
    assert differ(0, 2) == ["9", str(out / "a_seed9")]


def test_fixed_pairs_share_the_candidates_and_are_made_once_per_ranking(
    workspace: Workspace, tmp_path
) -> None:
    own = {"method": "offline_dpo", "pairs_path": "mine"}
    methods = ("offline_dpo", "combined_dpo", "modipo_t", "modipo_g", "sopo")
    rows = {method: {"method": method} for method in methods} | {"own": own}
    common = {"candidate_sampler": "ddim", "candidate_steps": 2, "num_candidates": 3}
    path = sweep_file(workspace, tmp_path, rows, common=common, pairs={"seed": 5}, seeds=[1, 2])
    made = plan(path)
    out = tmp_path / "out"
    assert [stage.title for stage in made.pairs.values()] == ["pairs_tmr", "pairs_evaluator"]
    for stage in made.pairs.values():
        for name, value in (common | {"seed": 5, "model_path": workspace.base}).items():
            assert option_of(stage.arguments, name) == [str(value)]
    assert option_of(made.pairs[out / "pairs_evaluator"].arguments, "reward") == ["evaluator"]
    folders = [options.pairs_path for options in made.run_options[:6]]
    tmr, evaluator = str(out / "pairs_tmr"), str(out / "pairs_evaluator")
    assert folders == [tmr, tmr, tmr, evaluator, "", "mine"]


def test_every_model_is_evaluated_on_humanml_and_stopped_evaluations_go_on(
    workspace: Workspace, tmp_path
) -> None:
    evaluation = {"eval_humanml": {"eval_mode": "debug"}, "tables": {"published": True}}
    rows = {"sft": {"method": "sft"}, "sopo": {}}
    made = plan(sweep_file(workspace, tmp_path, rows, evaluation=evaluation))
    *models, table = made.humanml(made.runs)
    names = ["base", "sft_seed1", "sopo_seed1"]
    assert [stage.title for stage in models] == [f"eval_{name}" for name in names]
    checkpoints = [workspace.base, *(run.product for run in made.runs)]
    for stage, name, model in zip(models, names, checkpoints, strict=True):
        assert option_of(stage.arguments, "model_path") == [str(model)]
        assert stage.product.parent == tmp_path / "out" / name
        assert not {"--resume", "--overwrite"} & set(stage.arguments)
    assert option_of(table.arguments, "compare") == [str(stage.product) for stage in models]
    assert option_of(table.arguments, "names") == ["base", "sft", "sopo"]
    assert not table.done

    for stage, ending in ((models[0], ".progress.json"), (models[1], ".log")):
        stage.product.parent.mkdir(parents=True)
        stage.product.with_suffix(ending).touch()
    again = [stage.arguments[-1] for stage in made.humanml(made.runs)[:2]]
    assert again == ["--resume", "--overwrite"]


BAD = {
    "row option": ({"rows": {"a": {"tua": 0.4}}}, "rows: a: tua is no option of python -m"),
    "common option": ({"common": {"x": 1}}, "common: x is no option of python -m train.train_sopo"),
    "method": ({"rows": {"a": {"method": "dpo"}}}, "rows: a: --method dpo is unknown"),
    "type": (
        {"rows": {"a": {"lr": "fast"}}},
        "rows: a: --lr: invalid float value: 'fast'",
    ),
    "bound": ({"rows": {"a": {"tau": 1.5}}}, "rows: a: --tau 1.5 is too large"),
    "own": ({"rows": {"a": {"seed": 3}}}, "rows: a: seed cannot be set here"),
    "other base": ({"rows": {"a": {"model_path": "x"}}}, "rows: a: model_path cannot be set here"),
    "no mapping": ({"rows": {"a": "sft"}}, "rows: a must hold `option: value` lines, not 'sft'"),
    "row name": ({"rows": {"a/b": {}}}, "rows: 'a/b' names a folder"),
    "taken name": ({"rows": {"base": {}}}, "rows: 'base' names a folder"),
    "no row": ({"rows": {}}, "at least one row and one seed"),
    "seed twice": ({"seeds": [1, 1]}, "and no seed twice"),
    "part": ({"row": {}}, "has unknown options: row"),
    "config": ({"common": {"config": "no.yaml"}}, "common: config no.yaml cannot be read"),
    "no base": ({"common": {"model_path": None}}, "model000750000.pt does not exist"),
    "gone base": ({"common": {"model_path": "gone.pt"}}, "--model_path gone.pt does not exist"),
    "gone reward": ({"common": {"reward_path": "gone"}}, "gone does not exist"),
    "gone data": ({"common": {"data_dir": "gone"}}, "gone"),
    "gone judge": ({"evaluation": {"eval_tmr": {"judge_path": "nobody"}}}, "nobody does not exist"),
    "no judge": ({"evaluation": {"eval_tmr": None}}, "evaluation: eval_tmr: --judge_path is requi"),
    "script": ({"evaluation": {"eval_mdm": {}}}, "evaluation: use eval_tmr, eval_tmr_NAME"),
    "lone tables": ({"evaluation": {"tables": {}}}, "eval_humanml (which tables needs)"),
    "names": ({"evaluation": {"eval_tmr": {"names": "x"}}}, "eval_tmr: names cannot be set here"),
    "pairs": (
        {"rows": {"a": {"method": "offline_dpo"}}, "pairs": {"num_candidates": 1}},
        "pairs: --num_candidates 1 is too small",
    ),
}


@pytest.mark.parametrize(("parts", "message"), BAD.values(), ids=BAD)
def test_mistakes_are_told_in_one_line_before_anything_starts(
    workspace: Workspace, tmp_path, started, capsys, parts, message
) -> None:
    parts = {"rows": {"a": {}}} | parts
    path = sweep_file(workspace, tmp_path, parts.pop("rows"), **parts)
    with pytest.raises(SystemExit) as end:
        sweep(path)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert started == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_sweeps_of_the_project_are_valid(path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    made = plan(path)
    assert made.stages()[-1].kind.startswith("eval_tmr") or made.stages()[-1].title == "table"
    methods = {run.kind: o.method for run, o in zip(made.runs, made.run_options, strict=True)}
    if "table" in path.stem:
        assert all(row == method for row, method in methods.items())
        assert set(methods) < set(METHODS)
    assert len({o.model_path for o in made.run_options}) == 1
    if "settings" not in path.stem:
        rows = list(zip(made.runs, made.run_options, strict=True))
        controls = [o for run, o in rows if run.kind.startswith("sft_lr_")]  # at other rates
        assert {o.method for o in controls} <= {"sft"}
        kept = [o for run, o in rows if not run.kind.startswith("sft_lr_")]
        assert len({(o.num_steps, o.batch_size) for o in made.run_options}) == 1, "the same work"
        assert len({o.lr for o in kept}) == 1
