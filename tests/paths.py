"""Where optional test material lies: golden numbers and motion capture, next to the repository."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SOPO_SHARED_DIR", ROOT.parent / "shared"))
GOLDEN_DIR = SHARED / "golden"
MOCAP_DIR = SHARED / "mocap"
CMU_DIR = SHARED / "cmu"

needs_golden = pytest.mark.skipif(
    not GOLDEN_DIR.is_dir(), reason=f"golden numbers not found at {GOLDEN_DIR}"
)
needs_mocap = pytest.mark.skipif(
    not MOCAP_DIR.is_dir(), reason=f"motion capture not found at {MOCAP_DIR}"
)
needs_cmu = pytest.mark.skipif(
    not CMU_DIR.is_dir(), reason=f"captions on CMU motion capture not found at {CMU_DIR}"
)
