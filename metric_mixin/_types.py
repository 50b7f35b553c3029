"""The stages: a name in, the same name or an error out; pure."""

from __future__ import annotations

from typing import Any, Literal, get_args

from metric_mixin._errors import StageError

Stage = Literal["train", "val", "test"]

STAGES: tuple[Stage, ...] = get_args(Stage)


def as_stage(value: Any) -> Stage:
    """Return ``value`` as a stage, or raise ``StageError`` naming the three that exist."""
    if value not in STAGES:
        raise StageError(f"Unknown stage {value!r}: expected one of {', '.join(map(repr, STAGES))}.")
    stage: Stage = value
    return stage
