"""One tiny dataset with a base model and a reward model, trained once per session."""

import pytest

from prepare import synthetic
from tests.train.scripts import Workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Workspace:
    root = tmp_path_factory.mktemp("training")
    data = root / "data"
    synthetic.build(synthetic.Options(out=str(data), num_clips=60, captions_per_clip=2))
    names = (data / "all.txt").read_text().split()
    (data / "val.txt").write_text("\n".join(names[:16]))  # pools of distinct meanings need some
    space = Workspace(data, root / "base" / "model000000002.pt", root / "reward")
    space.run("train_mdm", space.base.parent, "--use_ema")
    space.run("train_tmr", space.reward)
    return space
