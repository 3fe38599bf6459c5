"""Download scripts: resumed, repeatable, and never at the cost of what is there."""

import io
import json
import os
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.prepare import fake_curl

SCRIPTS = sorted(p.name for p in (ROOT / "prepare").glob("download_*.sh") if "common" not in p.name)
GLOVE = {
    name: name.encode() * 50
    for name in ("our_vab_data.npy", "our_vab_words.pkl", "our_vab_idx.pkl")
}
GLOVE_ID = "1cmXKUT31pqd7_XpJAiWEo1K81TMYHA5n"


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@dataclass
class Machine:
    """An output folder and a fake `curl` first in PATH."""

    out: Path
    curl: Path

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", str(ROOT / "prepare" / script), "--out", str(self.out), *arguments],
            env={**os.environ, "PATH": f"{self.curl}:{os.environ['PATH']}"},
            cwd=self.curl,
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[str]:
        return (self.curl / "calls.txt").read_text().splitlines()

    def files(self) -> dict[str, bytes]:
        paths = self.out.rglob("*") if self.out.exists() else []
        return {str(p.relative_to(self.out)): p.read_bytes() for p in paths if p.is_file()}

    def refusal(self, script: str, *arguments: str) -> str:
        """The one line that a failing script prints."""
        run = self.run(script, *arguments)
        assert run.returncode == 1, run.stdout + run.stderr
        assert run.stderr.startswith("error: ")
        assert run.stderr.count("\n") == 1, run.stderr
        return run.stderr


@pytest.fixture
def machine(tmp_path):
    def build(served: dict[str, bytes]) -> Machine:
        fake_curl.install(tmp_path / "bin", served)
        return Machine(tmp_path / "out", tmp_path / "bin")

    return build


@pytest.fixture
def glove(machine) -> Machine:
    return machine({GLOVE_ID: zipped({f"glove/{k}": v for k, v in GLOVE.items()})})


IN_PLACE = {f"glove/{name}": content for name, content in GLOVE.items()}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_tells_the_places_and_changes_nothing(machine, script: str) -> None:
    here = machine({})
    subprocess.run(["bash", "-n", str(ROOT / "prepare" / script)], check=True)
    run = here.run(script, "--dry_run")
    assert run.returncode == 0, run.stderr
    assert "://" in run.stdout
    assert str(here.out) in run.stdout
    assert not here.out.exists()
    assert here.calls() == []
    assert f"bash prepare/{script}" in here.run(script, "--help").stdout
    assert "unknown option --nonsense" in here.refusal(script, "--nonsense")
    assert "nonsense" in here.refusal(script, "nonsense", "--dry_run")


def test_an_archive_is_unpacked_once(glove: Machine) -> None:
    assert glove.run("download_glove.sh").returncode == 0
    assert glove.files() == IN_PLACE, "the archive and every temporary file are gone"
    assert (glove.out / "glove").stat().st_mode & 0o055, "others can read the folder"
    again = glove.run("download_glove.sh")
    assert again.returncode == 0
    assert "kept: " in again.stdout
    assert len(glove.calls()) == 1


def test_a_stopped_download_is_resumed(glove: Machine) -> None:
    (glove.curl / "stop_after").write_text("100")
    assert "run this again to resume it" in glove.refusal("download_glove.sh")
    assert list(glove.files()) == ["downloads/glove.zip.part"]
    (glove.curl / "stop_after").unlink()
    assert glove.run("download_glove.sh").returncode == 0
    assert glove.calls()[1].endswith(" from 100")
    assert glove.files() == IN_PLACE


def test_a_server_that_cannot_resume_is_asked_from_the_start(glove: Machine) -> None:
    part = glove.out / "downloads" / "glove.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"of another release")
    (glove.curl / "no_resume").touch()
    assert glove.run("download_glove.sh").returncode == 0
    assert [call.split()[-1] for call in glove.calls()] == ["18", "0"]
    assert glove.files() == IN_PLACE


def test_what_the_user_has_stays_and_only_the_rest_is_added(glove: Machine) -> None:
    mine = {"glove/our_vab_data.npy": b"mine", "glove/notes/read.me": b"my notes"}
    for name, content in mine.items():
        (glove.out / name).parent.mkdir(parents=True, exist_ok=True)
        (glove.out / name).write_bytes(content)
    assert glove.run("download_glove.sh").returncode == 0
    assert glove.files() == {**IN_PLACE, **mine}


def test_an_archive_fetched_by_hand_is_used_and_stays(machine) -> None:
    here = machine({})
    archive = here.out / "downloads" / "glove.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(zipped(GLOVE))  # without a top folder
    assert here.run("download_glove.sh").returncode == 0
    assert here.calls() == []
    assert here.files() == {**IN_PLACE, "downloads/glove.zip": archive.read_bytes()}


def test_offline_is_told_and_leaves_nothing(glove: Machine) -> None:
    (glove.curl / "exit_code").write_text("6")
    message = glove.refusal("download_glove.sh")
    assert "offline" in message
    assert f"https://drive.google.com/file/d/{GLOVE_ID}/view" in message
    assert str(glove.out / "downloads" / "glove.zip") in message
    assert glove.files() == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>quota</html>", "gave a web page"),
        (b"PK no archive at all", "cannot be unpacked"),
        (zipped({"other/file": b"1"}), "does not hold our_vab_data.npy"),
    ],
)
def test_a_wrong_file_is_refused(machine, content: bytes, reason: str) -> None:
    here = machine({GLOVE_ID: content})
    assert reason in here.refusal("download_glove.sh")
    assert not any("our_vab" in name or ".unpack" in name for name in here.files())
    assert not list(here.out.glob(".unpack.*"))


def test_an_address_that_is_gone_is_told(machine) -> None:
    here = machine({})
    assert "refused" in here.refusal("download_humanml_texts.sh")
    assert here.files() == {}


def test_a_wrong_checksum_is_refused(machine) -> None:
    names = ("tmr_humanml3d_guoh3dfeats", "tmr_kitml_guoh3dfeats")
    here = machine({"1n6kRb": tarred({f"models/{name}/config.json": b"{}" for name in names})})
    assert "another checksum" in here.refusal("download_tmr.sh")
    assert here.files() == {}


def test_every_named_model_goes_to_its_own_folder(machine) -> None:
    served = {"1cfadR1e": "any_name", "1SHCRcE0": "kit_trans_enc_512"}
    here = machine({key: zipped({f"{top}/args.json": b"{}"}) for key, top in served.items()})
    names = ["humanml_enc_512_50steps", "kit_trans_enc_512"]
    assert here.run("download_mdm.sh", *names).returncode == 0
    assert set(here.files()) == {f"save/{name}/args.json" for name in names}
    assert "no model nonsense" in here.refusal("download_mdm.sh", "nonsense")


def test_latent_models_come_from_both_authors(machine) -> None:
    files = {
        "mld_humanml/mld_humanml_v1.ckpt": b"1",
        "motionlcm_humanml/motionlcm_humanml.ckpt": b"2",
    }
    archive = zipped({f"experiments_t2m/{name}": content for name, content in files.items()})
    here = machine({"1U7homKo": archive, "1hplrnQw": b"lightning"})
    assert here.run("download_mld.sh").returncode == 0
    assert here.run("download_mld.sh", "motionlcm", "mld_humanml3d").returncode == 0
    assert here.files() == {
        f"save/motionlcm/{name}": content for name, content in files.items()
    } | {"save/mld_humanml3d/mld_humanml3d.ckpt": b"lightning"}
    assert len(here.calls()) == 2
    assert "no model nonsense" in here.refusal("download_mld.sh", "nonsense")


def listing(*names: str) -> bytes:
    return json.dumps({"siblings": [{"rfilename": name} for name in names]}).encode()


def test_the_hub_is_read_file_by_file(machine) -> None:
    files = {"a/model000000100.pt": b"weights", "args.json": b"{}"}
    served = {f"resolve/main/{name}": content for name, content in files.items()}
    here = machine({"/api/models/": listing(".gitattributes", *files), **served})
    assert here.run("download_sopo.sh").returncode == 0
    found = here.files()
    assert {k: found[f"save/sopo_humanml3d/{k}"] for k in files} == files
    count = len(here.calls())
    assert here.run("download_sopo.sh").returncode == 0
    assert len(here.calls()) == count


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_file_names_of_the_hub_cannot_lead_out_of_the_folder(machine, name: str) -> None:
    here = machine({"/api/models/": listing(name), "outside": b"1"})
    assert "gave no list of files" in here.refusal("download_sopo.sh")
    assert here.files() == {}


def test_all_of_humanml_but_its_motions(machine) -> None:
    plain = ["Mean.npy", "Std.npy", "train.txt", "val.txt", "test.txt", "index.csv"]
    texts = zipped({"texts/000000.txt": b"a#a/DET#0.0#0.0", "__MACOSX/texts/._x": b"?"})
    here = machine({"texts.zip": texts, **{name: name.encode() for name in plain}})
    assert here.run("download_humanml_texts.sh").returncode == 0
    assert set(here.files()) == {
        f"dataset/HumanML3D/{name}" for name in [*plain, "texts/000000.txt"]
    }


def test_the_mocap_database_of_cmu(machine) -> None:
    files = {"subjects/01/01.asf": b"skeleton", "subjects/01/01_01.amc": b"motion"}
    archive = zipped({f"all_asfamc/{name}": content for name, content in files.items()})
    here = machine({"mocap.cs.cmu.edu/allasfamc.zip": archive})
    assert here.run("download_cmu.sh").returncode == 0
    assert here.files() == {f"dataset/CMU/{name}": content for name, content in files.items()}
