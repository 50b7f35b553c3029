"""What a step hands over -> what metrics and the loss take: pairs, rows, weights, detached values; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

from torch import Tensor

from metric_mixin._errors import BatchError


def split_pair(batch: Any) -> tuple[Any, Any]:
    """Take a 2-tuple or 2-list apart.

    Raises:
        BatchError: The batch is anything else; the message names ``split_batch``.
    """
    if is_pair(batch):
        return batch[0], batch[1]
    raise BatchError(
        f"Cannot split a batch into inputs and target: expected a tuple or list of 2, got {describe(batch)}. "
        "Override `split_batch(self, batch)` to return (inputs, target)."
    )


def is_pair(batch: Any) -> bool:
    """Whether the default ``split_batch`` can take ``batch`` apart."""
    return isinstance(batch, tuple | list) and len(batch) == 2


def count_rows(target: Any, batch: Any) -> int:
    """Return the number of rows of a batch, from its target, or, where that has none, from the inputs or the batch.

    A tensor has as many rows as its first dimension (a 0-d one is one row), a mapping the rows that all its values
    agree on, a list or tuple of anything but tensors as many as it has items. Of one of tensors nobody knows
    whether it is several targets or one target a row: it has the rows that all tensors, those of the inputs included,
    agree on, else as many as the inputs have items too.

    Raises:
        BatchError: There is nothing to count; the message names ``batch_weight``.
    """
    pair = is_pair(batch)
    inputs = batch[0] if pair else None
    rows = _rows(target)
    if rows is None and _of_tensors(target):
        rows = _rows_of_tensors(target, inputs)
    if rows is None:
        rows = _rows(inputs)
    if rows is None and not pair:
        rows = (
            _rows_of_tensors(batch, None) if _of_tensors(batch) else None if isinstance(batch, tuple) else _rows(batch)
        )
    if rows is None:
        raise BatchError(
            f"Cannot count the rows of a batch with target {describe(target)}. Override "
            "`batch_weight(self, target, batch)` to return the number of rows, as an int or a 0-d tensor."
        )
    return rows


def _rows(value: Any) -> int | None:
    if isinstance(value, Tensor):
        return value.shape[0] if value.ndim else 1
    if isinstance(value, Mapping):
        counts = {_rows(part) for part in value.values() if isinstance(part, Tensor | list | tuple)}
        return counts.pop() if len(counts) == 1 else None
    if isinstance(value, str | bytes) or _of_tensors(value):
        return None
    return len(value) if isinstance(value, Sized) else None


def _of_tensors(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value)


def _rows_of_tensors(target: Sequence[Any], inputs: Any) -> int | None:
    """Rows of several tensors that are either the parts of a batch or its rows."""
    parts = [*target, *(inputs if _of_tensors(inputs) else [inputs])]
    counts = {_rows(part) for part in parts if isinstance(part, Tensor)}
    if len(counts) == 1:
        return counts.pop()
    if isinstance(inputs, Tensor):
        return _rows(inputs)
    return len(target) if _of_tensors(inputs) and len(inputs) == len(target) else None


def checked_weight(weight: Any) -> int | float | Tensor:
    """Return the weight of a batch, or raise ``BatchError`` where it is no number of rows, pixels or tokens."""
    if isinstance(weight, Tensor) and weight.ndim == 0 and not weight.is_complex():
        return weight.detach()
    if isinstance(weight, int | float) and not isinstance(weight, bool) and weight >= 0:
        return weight
    raise BatchError(f"A weight of a batch must be a number of at least 0 or a 0-d tensor, got {describe(weight)}.")


def checked_loss(loss: Any) -> Tensor:
    """Return a batch's loss as a 0-d tensor, or raise ``BatchError`` where it is no single number."""
    if isinstance(loss, Tensor) and loss.numel() == 1 and not loss.is_complex():
        return loss.reshape(())
    raise BatchError(
        f"`loss` must return one number for the batch, a tensor of shape (), got {describe(loss)}. "
        "Reduce it, e.g. with `.mean()`."
    )


def detached(value: Any, to_cpu: bool = False) -> Any:
    """Return ``value`` with every tensor in its tuples, lists and dicts detached, so that no graph is kept."""
    if isinstance(value, Tensor):
        return value.detach().cpu() if to_cpu else value.detach()
    if isinstance(value, tuple | list):
        parts = [detached(part, to_cpu) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: detached(part, to_cpu) for key, part in value.items()}
    return value


def describe(value: Any) -> str:
    """A value for a message: its type, with the shape of a tensor and the size of a container."""
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return f"{kind} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{kind} with keys {', '.join(map(repr, value))}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"{kind} of length {len(value)}"
    return f"{kind} {value!r}"
