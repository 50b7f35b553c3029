"""Keys -> folders: a key in, a relative path out that every file system takes; pure but for what is taken already."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import MutableMapping
from hashlib import sha256
from pathlib import PurePosixPath

_KEPT = frozenset("-_.@+= ")
_LONGEST = 120
"""Bytes of a part; file systems take 255, encrypted ones 143."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE)
"""What Windows takes for a device, whatever follows the first dot."""


def folder_of(key: str, taken: MutableMapping[str, str]) -> PurePosixPath:
    """Return the folder of a key, below the one that it is put in; two keys never share one.

    Letters, digits and harmless signs stay; the rest is written as ``~`` and the hex code of each byte. Where a file
    system that takes upper and lower case, or two ways to write an accent, for the same would mix two keys up, the
    later one gets ``~~`` and a digest.

    Args:
        key: The key.
        taken: What was given to which key so far; it grows by one for each new key.

    Examples:
        >>> taken = {}
        >>> [str(folder_of(key, taken)) for key in ("val/F1", "val/f1", "val/c#", "../x")]
        ['val/F1', 'val/f1~~04d89843', 'val/c~23', '~2E~2E/x']
    """
    path = PurePosixPath(*(_safe(part) for part in key.split("/") if part))
    if taken.setdefault(_folded(path), key) == key:
        return path
    return path.parent / _with_digest(path.name, key)


def _safe(part: str) -> str:
    """One part of a key as the name of a folder, which is neither a device, hidden at its end, nor a picture's."""
    safe = "".join(c if c.isalnum() or c in _KEPT else _code(c) for c in part) if part.strip(".") else _code(part)
    if safe[-1] in ". ":
        safe = safe[:-1] + _code(safe[-1])
    if safe.lower().endswith(".png"):
        safe = safe[:-4] + _code(".") + safe[-3:]
    if _RESERVED.fullmatch(safe):
        safe = _code(safe[0]) + safe[1:]
    return safe if len(_bytes(safe)) <= _LONGEST else _with_digest(safe, part)


def _with_digest(name: str, key: str) -> str:
    start = _bytes(name)[: _LONGEST - 10].decode(errors="ignore")
    return f"{start}~~{sha256(_bytes(key)).hexdigest()[:8]}"


def _code(text: str) -> str:
    return "".join(f"~{byte:02X}" for byte in _bytes(text))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _folded(path: PurePosixPath) -> str:
    """What a file system sees that tells neither cases nor ways to write an accent apart."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", str(path)).casefold())
