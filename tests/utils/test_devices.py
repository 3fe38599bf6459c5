"""Names of devices, as users give them."""

import pytest
import torch

from utils.devices import pick_device
from utils.errors import UserError


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    for name in (
        "gpu",
        "mps",
        "xpu",
        "meta",
        "vulkan",
        "hpu",
        "cpu:7",
        "cpu:0",
        "cuda:x",
        "-1",
        "",
    ):
        with pytest.raises(UserError, match="is unknown; use auto, cpu, cuda or an index"):
            pick_device(name)
    if not torch.cuda.is_available():
        assert pick_device("0").type == "cpu"
        with pytest.raises(UserError, match="no CUDA"):
            pick_device("cuda")


def test_only_gpus_that_there_are(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("1") == pick_device("cuda:1") == torch.device("cuda:1")
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    with pytest.raises(UserError, match="there are 2 CUDA devices"):
        pick_device("2")
