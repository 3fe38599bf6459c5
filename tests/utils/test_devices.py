"""Names of devices, as users give them."""

import pytest
import torch

from utils.devices import pick_device
from utils.errors import UserError


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="unknown"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        assert pick_device("0").type == "cpu"
        with pytest.raises(UserError, match="no CUDA"):
            pick_device("cuda")
