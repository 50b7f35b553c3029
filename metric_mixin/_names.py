"""What a metric, a dataloader or a class may be called: a string in, what is wrong with it out; pure."""

from __future__ import annotations

RESERVED = "loss"


def name_fault(name: object) -> str | None:
    """Say what is wrong with ``name`` as a part of a key, or ``None`` where it is legal.

    A legal name is a non-empty printable string without a backslash or spaces at its ends, whose parts between
    slashes are neither empty nor ``.`` nor ``..``. Loggers break on the rest: a file back end takes a key as a path,
    a CSV file breaks at a line end, and Lightning cuts keys at ``/dataloader_idx_``.
    """
    if not isinstance(name, str):
        return f"is {type(name).__name__}, not a string"
    if not name:
        return "is empty"
    if not name.isprintable():
        return "contains a character that cannot be printed"
    if "\\" in name:
        return "contains a backslash"
    if name != name.strip():
        return "begins or ends with a space"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has an empty part, '.' or '..' between slashes"
    if "dataloader_idx_" in name:
        return "contains 'dataloader_idx_', where Lightning cuts keys"
    return None
