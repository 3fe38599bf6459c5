from utils.start import entry_point

from dataclasses import asdict, dataclass

import pytest

from utils.errors import UserError
from utils.options import (
    changed_options,
    fixed_options,
    option,
    parse_options,
    with_default,
)


@dataclass
class Options:
    save_dir: str = option("", "folder", required=True)
    steps: int = option(10, "steps", minimum=1)
    tau: float | None = option(None, "threshold", minimum=0, maximum=1)
    names: list[str] = option([], "names")
    method: str = option("a", "method", choices=("a", "b"))
    flag: bool = option(True, "a flag")


def parse(*words: str) -> Options:
    return parse_options(Options, list(words))


def test_defaults_and_command_line() -> None:
    options = parse("--save_dir", "x", "--tau", "0.3", "--names", "p", "q")
    assert options == Options(save_dir="x", tau=0.3, names=["p", "q"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--flag", "False"], False), (["--flag", "true"], True), (["--flag"], True), ([], True)],
)
def test_false_is_false(words: list[str], expected: bool) -> None:
    assert parse("--save_dir", "x", *words).flag is expected


def test_command_line_wins_over_yaml_and_yaml_over_defaults(tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("save_dir: y\nsteps: 3\nnames: [a]\nflag: false\n")
    options = parse("--config", str(path), "--steps", "5")
    assert (options.save_dir, options.steps, options.names, options.flag) == ("y", 5, ["a"], False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--save_dir is required"),
        (["--save_dir", "x", "--steps", "0"], "--steps 0 is too small"),
        (["--save_dir", "x", "--tau", "1.5"], "--tau 1.5 is too large"),
        (["--save_dir", "x", "--tau", "nan"], "--tau nan is too small"),
        (["--save_dir", "x", "--method", "z"], "choose one of a, b"),
        (["--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--stpes", "3"], r"^--stpes is no option \(did you mean --steps\?\)$"),
        (["--step=3"], r"^--step is no option \(did you mean --steps\?\)$"),  # no abbreviations
        (["--zzz", "--confg", "x"], r"^--zzz is no option; --confg .*\(did you mean --config\?"),
        (["--steps", "3", "4"], "^4: no option takes this"),
        (["--steps", "many"], r"^--steps: invalid int value: 'many'$"),
        (["--steps"], r"^--steps: expected one argument$"),
        (["--flag", "maybe"], r"^--flag: expected true or false, got 'maybe'$"),
    ],
)
def test_bad_values_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(*words)


def test_a_yaml_error_is_told_in_one_line(tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("lr: [1\nsteps: 2\n")
    with pytest.raises(UserError, match="not valid YAML") as error:
        parse("--config", str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3\nzzz: 1", r"unknown options: stepz \(did you mean steps\?\), zzz$"),
        ("null: 1", "unknown options: None"),
        ("steps: many", "steps: 'many' is not a int"),
        ("steps: 3.7", r"steps: 3\.7 is not a int"),
        ("steps: true", "steps: True is not a int"),
        ("steps: .inf", "steps: inf is not a int"),
        ("steps: null", "steps: None is not a int"),
        ("steps: 2024-99-99", "not valid YAML"),
        ("tau: [0.1]", r"tau: \[0\.1\] is not a float"),
        ("save_dir: {a: 1}", "is not a str"),
        ("flag: 2", "flag: 2 is not a bool"),
        ("- steps", "must hold `option: value` lines"),
        ("[" * 10_000, "not valid YAML"),
    ],
)
def test_yaml_that_holds_something_else_is_refused(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        parse("--config", str(path))
    assert "\n" not in str(error.value)


def test_yaml_that_is_no_text_is_refused(tmp_path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"steps: \xff")
    with pytest.raises(UserError, match="not valid YAML"):
        parse("--config", str(tmp_path / "c.yaml"))


def test_null_takes_the_place_of_a_value_where_there_may_be_none(tmp_path) -> None:
    (tmp_path / "c.yaml").write_text("save_dir: x\ntau: null\n")
    assert parse("--config", str(tmp_path / "c.yaml")).tau is None


@dataclass
class Run(Options):
    steps: int = with_default(20, free="upwards")
    lr: float = option(0.1, "rate")
    interval: int = option(5, "steps between", free="resume")
    device: str = option("auto", "device", free="always")


def test_another_default_keeps_help_and_bounds() -> None:
    assert parse_options(Run, ["--save_dir", "x"]).steps == 20
    with pytest.raises(UserError, match="--steps 0 is too small; minimum 1"):
        parse_options(Run, ["--save_dir", "x", "--steps", "0"])
    assert Run.__dataclass_fields__["steps"].metadata["help"] == "steps"


@dataclass
class Placed(Run):
    save_dir: str = with_default("runs", "where the runs are")
    steps: int = with_default(30)


def test_a_default_ends_a_requirement_and_the_nearest_declaration_counts() -> None:
    assert parse_options(Placed, []) == Placed(save_dir="runs", steps=30)
    rules = {name: field.metadata for name, field in Placed.__dataclass_fields__.items()}
    assert rules["save_dir"]["help"] == "where the runs are"
    assert (rules["steps"]["free"], rules["steps"]["minimum"]) == ("upwards", 1)
    assert Run.__dataclass_fields__["save_dir"].metadata["required"], "the base keeps its own"


def test_changed_options_are_those_that_may_not_differ() -> None:
    stored = {"steps": 20, "lr": 0.1, "interval": 5, "device": "cuda", "provenance": {}}
    assert changed_options(stored, Run(device="cpu")) == []
    assert changed_options(stored, Run(lr=0.2, names=["a"])) == [
        "--names [] -> ['a']",
        "--lr 0.1 -> 0.2",
    ]
    assert changed_options({"lr": 0.1}, Run(tau=0.5)) == ["--tau None -> 0.5"], "it lacks tau"


@pytest.mark.parametrize(
    ("wanted", "taken_over", "resumed"),
    [
        (Run(interval=6), ["--interval 5 -> 6"], []),
        (Run(steps=30), ["--steps 20 -> 30"], []),
        (Run(steps=10), ["--steps 20 -> 10"], ["--steps 20 -> 10"]),
        (Run(lr=0.2), ["--lr 0.1 -> 0.2"], ["--lr 0.1 -> 0.2"]),
    ],
)
def test_a_resumed_run_may_differ_in_more(wanted: Run, taken_over, resumed) -> None:
    stored = {"steps": 20, "lr": 0.1, "interval": 5}
    assert changed_options(stored, wanted) == taken_over
    assert changed_options(stored, wanted, resumed=True) == resumed


def test_a_damaged_record_is_a_difference() -> None:
    assert changed_options({"steps": "a"}, Run(), resumed=True) == ["--steps a -> 20"]


def test_fixed_options_leave_out_what_no_result_depends_on() -> None:
    assert fixed_options(Run(lr=0.5)).keys() == asdict(Run()).keys() - {"device"}
    assert fixed_options(Run(lr=0.5))["lr"] == 0.5


def test_a_user_error_is_one_line_and_exit_code_2(capsys) -> None:
    @entry_point
    def main() -> None:
        raise UserError("the file is missing")

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: the file is missing\n"
