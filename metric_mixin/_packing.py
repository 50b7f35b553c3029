"""States -> one tensor of bytes, and back; containers are pickled, tensors travel as they lie in memory; pure."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

_ALIGNED = 16  # bytes: no dtype has more


def packed(value: Any, device: torch.device) -> Tensor:
    """Return ``value`` as one tensor of bytes: the length of its pickle, the pickle, and the tensors in it."""
    packer = _Packer(file := io.BytesIO())
    packer.dump(value)
    pickled = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    length = torch.tensor([pickled.numel(), 0]).view(torch.uint8)
    parts = []
    for part in (length, pickled, *map(as_bytes, packer.tensors)):
        padding = torch.zeros(_padded(part.numel()) - part.numel(), dtype=torch.uint8, device=device)
        parts += [part.to(device), padding]
    return torch.cat(parts)


def unpacked(packed_bytes: Tensor) -> Any:
    """The inverse of ``packed``; tensors are views."""
    length = int(packed_bytes[:8].view(torch.int64))
    pickled = packed_bytes[_ALIGNED : _ALIGNED + length].cpu().numpy().tobytes()
    return _Unpacker(io.BytesIO(pickled), packed_bytes[_ALIGNED + _padded(length) :]).load()


def is_dense(value: Any) -> bool:
    """Whether ``value`` is a tensor that is nothing but its numbers."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def as_bytes(tensor: Tensor) -> Tensor:
    """Return the numbers of a dense tensor as they lie in memory, in one row."""
    dense = tensor.resolve_conj().resolve_neg().contiguous()
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)  # one element may have any stride


class _Packer(pickle.Pickler):
    """Pickles containers, and keeps tensors aside; those of a list, which may be very many, as one."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, value: Any) -> Any:
        if is_dense(value):
            self.tensors.append(value.detach())
            return value.dtype, tuple(value.shape)
        if type(value) is list and len(value) > 1 and all(map(is_dense, value)):
            kinds = {(tensor.dtype, tensor.device) for tensor in value}
            if len(kinds) == 1:
                self.tensors.append(torch.cat([tensor.detach().reshape(-1) for tensor in value]))
                return value[0].dtype, [tuple(tensor.shape) for tensor in value]
        return None


class _Unpacker(pickle.Unpickler):
    """The inverse: takes each tensor from the bytes that follow."""

    def __init__(self, file: io.BytesIO, payload: Tensor) -> None:
        super().__init__(file)
        self.payload = payload

    def persistent_load(self, form: Any) -> Any:
        dtype, shape = form
        shapes = shape if isinstance(shape, list) else [shape]
        counts = [torch.Size(one).numel() for one in shapes]
        size = sum(counts) * dtype.itemsize
        mine, self.payload = self.payload[:size], self.payload[_padded(size) :]
        parts = [part.reshape(one) for part, one in zip(torch.split(mine.view(dtype), counts), shapes, strict=True)]
        return parts if isinstance(shape, list) else parts[0]


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
