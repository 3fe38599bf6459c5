"""A `curl` that serves files of a folder and logs its calls, for tests of the download scripts.

Folder: ``index.json`` maps a part of an address to a file's name; ``calls.txt`` gets a line per
call, ``{address} from {first byte}``. ``stop_after`` (a number) cuts a transfer, ``exit_code`` ends
it at once, ``no_resume`` makes the server refuse to resume.
"""

import json
import stat
import sys
from pathlib import Path

STOPPED, NO_RESUME, REFUSED = 18, 33, 22  # curl's exit codes


def install(folder: Path, served: dict[str, bytes]) -> None:
    """Write the executable ``curl`` and what it serves into `folder`."""
    folder.mkdir()
    names = {}
    for number, (address, content) in enumerate(served.items()):
        (folder / f"file{number}").write_bytes(content)
        names[address] = f"file{number}"
    (folder / "index.json").write_text(json.dumps(names))
    (folder / "calls.txt").touch()
    script = folder / "curl"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__)} {folder} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def setting(folder: Path, name: str) -> int | None:
    return int((folder / name).read_text()) if (folder / name).exists() else None


def main(folder: Path, arguments: list[str]) -> int:
    address, output = arguments[-1], Path(arguments[arguments.index("--output") + 1])
    assert arguments[arguments.index("--continue-at") + 1] == "-"
    first = output.stat().st_size if output.exists() else 0
    with open(folder / "calls.txt", "a") as calls:
        calls.write(f"{address} from {first}\n")
    code = setting(folder, "exit_code")
    if code is not None:
        return code
    names = json.loads((folder / "index.json").read_text())
    found = next((name for part, name in names.items() if part in address), None)
    if found is None:
        print("404", end="")
        return REFUSED
    if first and (folder / "no_resume").exists():
        print("200", end="")
        return NO_RESUME
    content = (folder / found).read_bytes()
    stop = setting(folder, "stop_after")
    with open(output, "ab") as file:
        file.write(content[first:stop])
    print("206" if first else "200", end="")
    return STOPPED if stop is not None else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
