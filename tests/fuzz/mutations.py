"""Files of strangers: whole ones with a few mistakes in them, as Hypothesis draws them."""

import json
import re
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
PIECES = (
    *(b"", b"\0", b"\xff", b"\n", b"\n" * 3000, b"#", b":", b",", b"/", b"{", b"}", b"[", b"]"),
    *(b'"', b"'", b"[" * 3000, b"{" * 3000, b'{"a":' * 2000, b"null", b"true", b"[]", b"{}"),
    *(b"*a", b"&a ", b"!!python/object:os.system ", b"---\n", b"\xe2\x80\xa8", b"\xc3\xa9 "),
    *(b"../../x", b"walks " * 500, b"MOTION\n", b"Frames: 1000000\n", b"\x80\x04", b"PK\3\4"),
)
NUMBERS = (
    *(b"NaN", b"-1", b"0", b"1e308", b"90.01e100", b"1e9", b"1000000000", b"inf", b"1e-320"),
    *(b"9" * 5000, b"0.5", b"3", b"2147483648", b"-0.0", b"1e12", b"99999999999999999999"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 3, 0.5, 10**9, 1e308, float("nan"), float("inf"), 10**30, "", "x"),
    *([], {}, [[]], [None], {"a": 1}, "../../x", "é" * 2000, [0] * 100, {"": {}}),
)


@dataclass(frozen=True)
class Edit:
    """kind: what happens at the shares `place` and `size` of a file; `piece` what comes there."""

    kind: str
    place: float
    size: float
    piece: bytes
    number: bytes
    value: Any


share = st.floats(0, 1)
edit = st.builds(
    Edit,
    kind=st.sampled_from(("flip", "cut", "delete", "insert", "repeat", "number", "value")),
    place=share,
    size=share,
    piece=st.sampled_from(PIECES) | st.binary(max_size=40),
    number=st.sampled_from(NUMBERS),
    value=st.sampled_from(VALUES),
)
edits = st.lists(edit, min_size=1, max_size=4)


def apply(content: bytes, changes: list[Edit]) -> bytes:
    """The file after all changes, one after the other."""
    for change in changes:
        content = _apply(content, change)
    return content


def _apply(content: bytes, change: Edit) -> bytes:
    start = round(change.place * len(content))
    end = min(len(content), start + 1 + round(change.size * 50))
    match change.kind:
        case "flip" if start < len(content):
            flipped = bytearray(content)
            flipped[start] ^= 1 << round(7 * change.size)
            return bytes(flipped)
        case "cut":
            return content[:start]
        case "delete":
            return content[:start] + content[end:]
        case "repeat":
            return content[:end] + content[start:]
        case "number":
            found = list(NUMBER.finditer(content))
            if found:
                match = found[min(round(change.place * len(found)), len(found) - 1)]
                return content[: match.start()] + change.number + content[match.end() :]
        case "value":
            return _replace_value(content, change)
    return content[:start] + change.piece + content[start:]


def _replace_value(content: bytes, change: Edit) -> bytes:
    """Another value at one place of a JSON file; of other files, a piece replaced."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        start = round(change.place * len(content))
        return content[:start] + change.piece + content[start + len(change.piece) :]
    places = list(_places(tree))
    if not places:
        return json.dumps(change.value).encode()
    holder, key = places[min(round(change.place * len(places)), len(places) - 1)]
    holder[key] = change.value
    return json.dumps(tree).encode()


def _places(tree: Any) -> Any:
    """All (container, key or index) pairs."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    if isinstance(tree, (dict, list)):
        for key, value in items:
            yield tree, key
            if isinstance(value, (dict, list)):
                yield from _places(value)
