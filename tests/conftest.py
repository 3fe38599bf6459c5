"""Settings of the whole test run."""

import os
import sys
from pathlib import Path

from utils.threads import settle_threads

# As in an activated environment: `python` is the interpreter of the tests
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is first imported
settle_threads()  # read when torch is first imported
