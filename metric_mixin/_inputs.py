"""What a step hands over -> what metrics and the loss take: pairs, rows, weights, detached values; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any, NoReturn

import torch
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
    whether it is several targets or one target a row: it has the rows of the inputs, or those that all its tensors
    agree on; where both readings are possible and differ, it is an error.

    Raises:
        BatchError: There is nothing to count; the message names ``batch_weight``.
    """
    pair = is_pair(batch)
    inputs = batch[0] if pair else None
    rows = _rows(target)
    if isinstance(target, Mapping) and isinstance(inputs, Tensor) and rows not in (None, _rows(inputs)):
        return _uncounted(target)  # boxes of one image, say
    if rows is None and _of_tensors(target):
        rows = _rows_of_tensors(target, inputs)
    if rows is None:
        rows = _rows(inputs)
    if rows is None and not pair and _of_tensors(batch):
        rows = _rows_of_tensors(batch, None)
    elif rows is None and not pair and not isinstance(batch, tuple):
        rows = _rows(batch)
    return _uncounted(target) if rows is None else rows


def _uncounted(target: Any) -> NoReturn:
    raise BatchError(
        f"Cannot count the rows of a batch with target {describe(target)}. Override "
        "`batch_weight(self, target, batch)` to return the number of rows, as an int or a 0-d tensor."
    )


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
    """Rows of several tensors that are either the parts of a batch or its rows; ``None`` where both may be."""
    if isinstance(inputs, Tensor):
        return _rows(inputs)
    parts = [*target, *(inputs if _of_tensors(inputs) else [])]
    counts = {_rows(part) for part in parts if isinstance(part, Tensor)}
    if _of_tensors(inputs) and len(inputs) == len(target):
        counts.add(len(target))  # as many inputs as targets: each may be a row
        return counts.pop() if len(counts) == 1 else len(target) if len(counts) > 2 else None
    return counts.pop() if len(counts) == 1 else None


def checked_weight(weight: Any) -> float | Tensor:
    """Return the weight of a batch, or raise ``BatchError`` where it is no number of rows, pixels or tokens."""
    if isinstance(weight, Tensor) and weight.ndim == 0 and not weight.is_complex():
        if weight.device.type != "cpu" or weight >= 0:  # elsewhere a look would wait for the device
            return weight.detach()
    elif not isinstance(weight, bool) and isinstance(weight, Real) and (number := float(weight)) >= 0:
        return number
    raise BatchError(f"A weight of a batch must be a number of at least 0 or a 0-d tensor, got {describe(weight)}.")


def checked_loss(loss: Any) -> Tensor:
    """Return a batch's loss as a 0-d tensor, or raise ``BatchError`` where it is no single number."""
    if isinstance(loss, Tensor) and loss.numel() == 1 and not loss.is_complex():
        return loss.reshape(())
    raise BatchError(
        f"`loss` must return one number for the batch, a tensor of shape (), got {describe(loss)}. "
        "Reduce it, e.g. with `.mean()`."
    )


_HALF = (torch.float16, torch.bfloat16)


def prepared(value: Any, dtype: torch.dtype) -> Any:
    """Return inputs as metrics accumulate them: no graph is kept, and half precision becomes ``dtype``.

    Tuples, lists and dicts are followed; other values, and tensors of other dtypes, stay as they are.
    """

    def one(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.to(dtype) if tensor.dtype in _HALF else tensor

    return mapped(one, value)


def has_half(value: Any) -> bool:
    """Whether a tensor of half precision is among ``value``, its tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value.dtype in _HALF
    if isinstance(value, Mapping):
        return any(has_half(part) for part in value.values())
    return isinstance(value, tuple | list) and any(has_half(part) for part in value)


def mapped(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply ``function`` to every tensor in nested tuples, lists, dicts and dataclasses; types are kept."""
    if isinstance(value, Tensor):
        return function(value)
    return with_parts(lambda part: mapped(function, part), value)


def with_parts(function: Callable[[Any], Any], value: Any) -> Any:
    """A tuple, list, dict or dataclass of the same type, with ``function`` of each part; any other value itself."""
    if type(value) in (tuple, list):
        return type(value)(map(function, value))
    if type(value) is dict:
        return {key: function(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(function, value))
    if isinstance(value, list | MutableMapping) or (is_dataclass(value) and not isinstance(value, type)):
        return _copy_with_parts(function, value)
    return value


def _copy_with_parts(function: Callable[[Any], Any], value: Any) -> Any:
    """A copy of a container of somebody's own class."""
    result = copy(value)
    if isinstance(value, list):
        result[:] = map(function, value)
    elif isinstance(value, MutableMapping):
        for key, part in value.items():
            result[key] = function(part)
    else:
        for field in fields(value):
            object.__setattr__(result, field.name, function(getattr(value, field.name)))
    return result


def first_device(values: Iterable[Any]) -> torch.device | None:
    """Return the device of the first tensor among ``values``."""
    return next((value.device for value in values if isinstance(value, Tensor)), None)


@contextmanager
def exact_numerics(dtype: torch.dtype) -> Iterator[None]:
    """Accumulate and compute in full precision: no autocast, and no half precision as torch's default dtype.

    Lightning's ``*-true`` plugins make a half precision the default dtype during a step, its ``*-mixed`` ones autocast.
    """
    default = torch.get_default_dtype()
    casting = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    if default not in _HALF and not casting:
        yield
        return
    with ExitStack() as stack:
        for kind in casting:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if default in _HALF:
            torch.set_default_dtype(dtype)
            stack.callback(torch.set_default_dtype, default)
        yield


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
