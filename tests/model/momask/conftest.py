"""A tiny MoMask of KIT's features, loaded from folders in upstream's layout."""

from pathlib import Path

import pytest

from diffusion.sampling import SamplerOptions
from model.families import load_generator
from model.momask.generator import MoMaskGenerator
from tests.model.momask.tiny import write_folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A base transformer's folder in upstream's layout, KIT's features."""
    return write_folders(tmp_path_factory.mktemp("momask"))


@pytest.fixture
def generator(folder: Path) -> MoMaskGenerator:
    loaded = load_generator(folder, sampler=SamplerOptions("ancestral", 3))
    assert isinstance(loaded, MoMaskGenerator)
    return loaded
