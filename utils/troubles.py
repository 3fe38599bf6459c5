"""What is nobody's mistake: a full disk, a folder that is closed, too little memory."""

import errno
import re

DISK = {
    errno.ENOSPC: "free some space, or name another folder",
    errno.EDQUOT: "free some space, or name another folder",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "name a folder that can be written",
    errno.EPERM: "name a folder that can be written",
}
MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|unable to allocate", re.I
)
CUT_OFF = re.compile(r"unexpected pos|file write failed|requested and \d+ written")


def is_out_of_memory(error: BaseException) -> bool:
    told = isinstance(error, RuntimeError) and MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError) or told


def trouble(error: BaseException) -> str:
    """What happened and what to do, in one line; nothing where the program is to blame."""
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        advice = "lower the batch size or the sizes of the network, or free some"
        return f"out of memory ({text[:100] or 'no more can be had'}); {advice}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in DISK:
            place = f"{cause.filename}: " if cause.filename else ""
            return f"{place}{cause.strerror}; {DISK[cause.errno]}"
        cause = cause.__context__
    # as safetensors, torch.save and NumPy tell of the operating system's errors
    if number := re.search(r"\(os error (\d+)\)", text):
        code = int(number.group(1))
        return f"a file could not be written ({text}); {DISK[code]}" if code in DISK else ""
    if CUT_OFF.search(text):
        return "a file could not be written to its end; free some space, or name another folder"
    return ""
