"""The live page: what it accepts, makes and refuses, over real HTTP on this machine."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from data_loaders.skeleton import KIT
from model.families import GeneratorOptions
from model.seam import Samples
from sample.live.server import open_server
from sample.live.studio import Progress, Studio, Wish
from tests.sample.checkpoints import write_tiny_checkpoint
from utils.errors import UserError

WISH = {"prompt": "a person waves", "seconds": 0.5, "variants": 2, "steps": 2, "sampler": "ddim"}


def tiny_studio(folder) -> Studio:
    paths = [str(write_tiny_checkpoint(folder / name, seed)) for name, seed in (("a", 1), ("b", 2))]
    return Studio.load(paths, GeneratorOptions(device="cpu"))


@contextmanager
def serving(studio: Studio) -> Iterator[int]:
    """The port of a server in a thread of its own."""
    with open_server(studio, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Studio:
    return tiny_studio(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def port(studio: Studio) -> Iterator[int]:
    with serving(studio) as found:
        yield found


def ask(port: int, method: str, path: str, content: Any = None, **headers: str) -> tuple[int, str]:
    """Status and text of the answer; headers by name, with ``_`` for ``-``."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    given = {"Content-Type": "application/json"} if method == "POST" else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, None if content is None else body, given)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_a_wish_is_fulfilled_by_every_model(port: int, studio: Studio) -> None:
    status, text = ask(port, "POST", "/motions", WISH)
    assert status == 200, text
    page = json.loads(text)["page"]
    assert page["runs"] == ["a, 1", "a, 2", "b, 1", "b, 2"]
    ((row),) = page["rows"]
    assert row["caption"] == "a person waves"
    assert [motion["frames"] for motion in row["motions"]] == [10] * 4
    packed = base64.b64decode(json.loads(text)["motions"])
    assert len(packed) == 4 * 10 * (22 * 3 * 2 + 1)
    progress = json.loads(ask(port, "GET", "/progress")[1])
    assert progress == {"done": 4, "total": 4}, "two steps for each of two models"


def test_what_was_made_can_be_taken_away(port: int, studio: Studio) -> None:
    assert ask(port, "POST", "/motions", WISH)[0] == 200
    status, text = ask(port, "GET", "/export/3/bvh")
    assert status == 200
    assert text.startswith("HIERARCHY")
    assert "Frames: 10" in text
    file = studio.export(0, "npz")
    assert file.name == "a_person_waves_a,_1.npz"
    with np.load(io.BytesIO(file.content)) as content:
        joints = content["joints"]
    assert joints.shape == (10, 22, 3)
    for path in ("/export/4/bvh", "/export/0/exe"):
        status, text = ask(port, "GET", path)
        assert (status, "generate one first" in text) == (404, True)


def test_the_seed_and_the_guidance_decide(studio: Studio) -> None:
    def joints(**changes) -> np.ndarray:
        return studio.fulfil(Wish(prompt="a", seconds=0.2, **changes))[0].motions[0].joints

    first = joints(seed=1)
    np.testing.assert_array_equal(first, joints(seed=1))
    assert np.abs(first - joints(seed=2)).max() > 1e-3
    assert np.abs(first - joints(seed=1, guidance=6.0)).max() > 1e-5


def test_the_page_holds_form_and_viewer_and_asks_nobody_else(port: int) -> None:
    status, page = ask(port, "GET", "/")
    assert status == 200
    for name in (
        "prompt",
        "seconds",
        "guidance",
        "sampler",
        "steps",
        "seed",
        "variants",
        "best_of",
    ):
        assert f'name="{name}"' in page
    assert "connect-src 'self'" in page
    assert "<option selected>ancestral</option>" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WISH | {"prompt": "  "}, "the prompt holds no words"),
        (WISH | {"prompt": "a " * 200}, "longer than 300 characters"),
        (WISH | {"seconds": 40}, "choose 0.05 to 9.8 seconds"),
        (WISH | {"variants": 99}, "variants 99 is too large; maximum 8"),
        (WISH | {"sampler": "euler"}, "sampler euler is unknown"),
        (WISH | {"seed": "x"}, "seed: invalid int value"),
        (WISH | {"config": "/etc/passwd"}, "and nothing else"),
        ([1], "and nothing else"),
        (b"{", "Expecting property name"),
    ],
)
def test_wishes_that_cannot_be_are_told_in_a_line(port: int, content, message: str) -> None:
    status, text = ask(port, "POST", "/motions", content)
    assert status == 400
    told = json.loads(text)["error"]
    assert message in told
    assert "\n" not in told


def test_foreign_sites_and_other_requests_are_refused(port: int) -> None:
    assert ask(port, "GET", "/", Host="evil.example")[0] == 403
    assert ask(port, "POST", "/motions", WISH, Host="evil.example:7860")[0] == 403
    assert ask(port, "POST", "/motions", WISH, Content_Type="text/plain")[0] == 415
    assert ask(port, "POST", "/motions", WISH | {"prompt": "a" * 20_000})[0] == 400
    assert ask(port, "POST", "/elsewhere", WISH)[0] == 400
    assert ask(port, "GET", "/../../etc/passwd")[0] == 404


def test_the_reward_keeps_the_best_of_several(studio: Studio, monkeypatch) -> None:
    wish = Wish(prompt="a person waves", seconds=0.5, steps=2, sampler="ddim", best_of=3)
    with pytest.raises(UserError, match="best_of 3 needs a reward; start the page with --reward"):
        studio.fulfil(wish)

    class Highest:
        """The reward of a motion is the height of its root in the last frame."""

        def score(self, motions: Samples, captions: list[str]) -> Tensor:
            assert captions == [wish.prompt] * 3
            scores.append(motions.x[:, -1, 3])
            return scores[-1]

    scores: list[Tensor] = []
    monkeypatch.setattr(studio, "reward", Highest())
    runs = studio.fulfil(wish)
    assert [len(run.motions) for run in runs] == [1, 1]
    for run, found in zip(runs, scores, strict=True):
        assert run.motions[0].joints[-1, 0, 1] == pytest.approx(float(found.max()), abs=1e-5)


def test_one_wish_at_a_time(tmp_path, monkeypatch) -> None:
    studio = tiny_studio(tmp_path)
    started, may_end = threading.Event(), threading.Event()

    def slow(self: Studio, wish: Wish) -> list:
        started.set()
        may_end.wait(30)
        raise UserError("enough")

    monkeypatch.setattr(Studio, "fulfil", slow)
    with serving(studio) as port:
        first = threading.Thread(target=ask, args=(port, "POST", "/motions", WISH))
        first.start()
        assert started.wait(30)
        status, text = ask(port, "POST", "/motions", WISH)
        may_end.set()
        first.join()
        assert status == 409
        assert "another motion is being made" in text
        assert ask(port, "POST", "/motions", WISH) == (400, '{"error": "enough"}'), "free again"


def test_mistakes_are_told_before_anything_is_served(studio: Studio, tmp_path) -> None:
    with open_server(studio, "127.0.0.1", 0) as server, pytest.raises(UserError, match="in use"):
        open_server(studio, "127.0.0.1", server.server_port)
    kit = str(write_tiny_checkpoint(tmp_path / "kit", skeleton=KIT))
    human = str(write_tiny_checkpoint(tmp_path / "human"))
    with pytest.raises(UserError, match="another skeleton"):
        Studio.load([human, kit], GeneratorOptions(device="cpu"))
    with pytest.raises(UserError, match="does not exist"):
        Studio.load([str(tmp_path / "none.pt")], GeneratorOptions(device="cpu"))
    twice = Studio.load([human, human], GeneratorOptions(device="cpu"))
    assert list(twice.generators) == ["human", "human 2"]


def test_progress_counts_the_steps_of_all_models() -> None:
    progress = Progress(models=3)
    for _ in range(2):
        with progress(total=5, desc="denoising") as bar:
            for _ in range(5):
                bar.update()
    assert (progress.done, progress.total) == (10, 15)
