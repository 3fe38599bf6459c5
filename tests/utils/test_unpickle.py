"""Files of other projects: their tensors are read, their objects left out, their code refused."""

import functools
import importlib
import os
import subprocess
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.unpickle import LeftOut, load_tensors_only


class Command:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


UPSTREAM = """
import enum

class Config(dict):
    pass

class Module:
    def __init__(self, value):
        self.value = value

    def method(self):
        return self.value

class Kind(enum.Enum):
    A = 1

def collate(mark):
    open(mark, "w").close()
"""


@pytest.fixture
def foreign(tmp_path, monkeypatch) -> types.ModuleType:
    """A package of another project, there only while a file is written."""
    (tmp_path / "upstream_package.py").write_text(UPSTREAM)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("upstream_package")
    sys.modules.pop("upstream_package", None)


def test_tensors_are_read_beside_objects_of_a_missing_package(tmp_path, foreign) -> None:
    weight, mark = torch.randn(3, 4), tmp_path / "ran"
    counts = defaultdict(list, a=[1, 2])
    content = {
        "state_dict": OrderedDict(weight=weight, view=weight[1:, ::2], half=weight.half()),
        "parameter": torch.nn.Parameter(weight),
        "step": 7,
        "config": foreign.Config(model=foreign.Module([1, {"b": (2.5, None)}])),
        "hooks": [foreign.collate, functools.partial(foreign.collate, 3), foreign.Kind.A],
        "method": foreign.Module(1).method,
        "call": Command(foreign.collate, str(mark)),
        "numbers": (np.arange(3.0), np.float32(2), counts, {1, 2}, Path("a"), torch.float32),
    }
    torch.save(content, tmp_path / "x.ckpt")
    del sys.modules["upstream_package"]
    found = load_tensors_only(tmp_path / "x.ckpt")
    assert set(found) == set(content)
    assert found["step"] == 7
    for name, tensor in content["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor)
    assert torch.equal(found["parameter"], weight)
    assert isinstance(found["config"], LeftOut)
    assert not mark.exists()
    assert "upstream_package" not in sys.modules


@pytest.mark.parametrize(
    "function", [os.system, os.mkdir, subprocess.call, eval, exec], ids=lambda f: f.__name__
)
def test_code_is_refused_in_one_line_and_not_run(tmp_path, function) -> None:
    mark = tmp_path / "ran"
    arguments = {
        os.system: (f"touch {mark}",),
        os.mkdir: (str(mark),),
        subprocess.call: (["touch", str(mark)],),
    }.get(function, (f"__import__('os').mkdir({str(mark)!r})",))
    content = {"state_dict": {}, "hyper_parameters": Command(function, *arguments)}
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="carries code") as error:
        load_tensors_only(tmp_path / "x.ckpt")
    assert function.__name__ in str(error.value)
    assert "\n" not in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_damaged_files_are_named(tmp_path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.ckpt"):
        load_tensors_only(tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="does not exist"):
        load_tensors_only(tmp_path / "missing.ckpt")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_cut_file_and_torchscript_are_refused(tmp_path) -> None:
    torch.save({"a": torch.randn(1000)}, tmp_path / "x.ckpt")
    whole = (tmp_path / "x.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        load_tensors_only(tmp_path / "x.ckpt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "y.ckpt")
    with pytest.raises(UserError, match=r"not a checkpoint of torch\.save"):
        load_tensors_only(tmp_path / "y.ckpt")
