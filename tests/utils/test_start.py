"""What every script does with an error that is not its own."""

import subprocess
import sys


def test_a_reader_that_has_gone_ends_a_script_without_a_traceback() -> None:
    command = [sys.executable, "-m", "sopo", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
        assert script.stdout
        assert script.stderr
        script.stdout.close()  # before the script has a word to say
        assert script.stderr.read() == b""
    assert script.returncode == 1
