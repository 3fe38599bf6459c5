from utils.start import entry_point

from dataclasses import dataclass

import pytest

from utils.errors import UserError
from utils.options import option, parse_options


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


def test_yaml_with_unknown_or_mistyped_options_is_refused(tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("stepz: 3\n")
    with pytest.raises(UserError, match="unknown options: stepz"):
        parse("--config", str(path))
    path.write_text("steps: many\n")
    with pytest.raises(UserError, match="'many' is not a int"):
        parse("--config", str(path))


def test_a_user_error_is_one_line_and_exit_code_2(capsys) -> None:
    @entry_point
    def main() -> None:
        raise UserError("the file is missing")

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: the file is missing\n"
