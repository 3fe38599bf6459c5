"""Unpack archives of motion capture files, for prepare.mocap_captions and prepare.from_bvh.

    python -m prepare.unpack --archives MOCAP/raw --out save/bvh

OUT/unpacked.txt names the archives; it is written when all of them are complete.
"""

from utils.start import entry_point

import lzma
import tarfile
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import write_text
from utils.options import option, parse_options


@dataclass
class Options:
    archives: str = option("", "folder of .tar.xz archives", required=True)
    out: str = option("", "folder to unpack all of them into", required=True)


def unpack(options: Options) -> list[Path]:
    """The archives, unpacked. Raises UserError where there is none, or one is damaged."""
    archives = sorted(Path(options.archives).glob("*.tar.xz"))
    if not archives:
        raise UserError(f"--archives {options.archives} holds no .tar.xz archive")
    for path in archives:
        try:
            with tarfile.open(path) as archive:
                archive.extractall(options.out, filter="data")  # nothing lands outside of it
        except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
            raise UserError(f"{path} cannot be unpacked ({error}); fetch it again") from None
    write_text(Path(options.out) / "unpacked.txt", "".join(f"{path.name}\n" for path in archives))
    return archives


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    print(f"unpacked {len(unpack(options))} archives into {options.out}")


if __name__ == "__main__":
    main()
