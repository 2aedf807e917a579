"""Files of weights from others: looked at before they are read, refused before memory is taken."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FLOATS = ("F16", "BF16", "F32", "F64")  # numbers that weights are stored as


def check_size(path: Path, most_bytes: int) -> None:
    """Refuse what is no file, or so large that reading it would fill the memory.

    Raises:
        OSError, ValueError: it is.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > most_bytes:
        raise ValueError(f"{status.st_size} bytes; accepted: up to {most_bytes}")


def check_header(path: Path, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the header of a safetensors file with names and shapes; its data is not read.

    Raises:
        ValueError: they differ, or a tensor is not of floating point.
        OSError, safetensors.SafetensorError: it is no such file.
    """
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        held = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        for name in sorted(set(wanted) ^ set(held)):
            raise ValueError(f"{'it lacks' if name in wanted else 'it has, beside them,'} {name}")
        for name, part in held.items():
            shape, kind = tuple(part.get_shape()), part.get_dtype()
            if shape != wanted[name]:
                raise ValueError(f"{name} has the shape {shape}, needs {wanted[name]}")
            if kind not in FLOATS:
                raise ValueError(f"{name} is of {kind}; accepted: {', '.join(FLOATS)}")


def check_finite(tensors: Iterable[Any]) -> None:
    """Refuse weights that are NaN or infinite, as tensors of torch.

    Raises:
        ValueError: some are.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError("numbers in it are not finite")
