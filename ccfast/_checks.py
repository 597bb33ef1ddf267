"""Checks of one argument, or of several that must fit together, for :mod:`ccfast._arguments`.

Every message names the argument, what it got and what is expected. Wrong types raise ``TypeError``, wrong values
``ValueError``. The checks of the data itself (finite, unit norm, labels in range) are for the references;
the compiled ops do the same checks in C++ without an extra pass.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast import interop

#: Rows count as normalised if their norm differs from 1 by at most this.
UNIT_NORM_TOLERANCE = 1e-3

HALF = (torch.float16, torch.bfloat16)
HALF_OR_SINGLE = (torch.float32, torch.float16, torch.bfloat16)
SINGLE = (torch.float32,)
SINGLE_OR_DOUBLE = (torch.float32, torch.float64)
ANY_FLOAT = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGER = (
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip

LARGEST_INTEGER = 2**63 - 1
LISTS = (list, tuple, range)  # of integers

#: The same for rows that were normalised in half precision.
HALF_NORM_TOLERANCE = 1e-2


def as_tensor(name: str, value: Any) -> Tensor:
    """``value`` as a tensor: tensors unchanged, objects with ``__dlpack__`` (NumPy, CuPy, JAX) without a copy."""
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "__dlpack__"):
        try:
            return torch.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise TypeError(f"{name}: cannot be read through DLPack without a copy: {error}") from error
    raise TypeError(f"{name}: expected a torch.Tensor or an object with __dlpack__, got {type(value).__name__}")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def tensor(name: str, value: Any, dims: int, dtypes: Sequence[torch.dtype]) -> Tensor:
    """A strided tensor of ``dims`` dimensions and one of ``dtypes``; neither detached nor copied."""
    result = as_tensor(name, value)
    if result.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {result.layout}")
    if result.dtype not in dtypes:
        raise TypeError(f"{name}: expected dtype {_names(dtypes)}, got {_names([result.dtype])}")
    if result.dim() != dims:
        raise ValueError(f"{name}: expected {dims} dimension(s), got shape {tuple(result.shape)}")
    return result


def matrix(name: str, value: Any, dtypes: Sequence[torch.dtype], *, allow_no_rows: bool = False) -> Tensor:
    """A non-empty ``[N, D]`` matrix of floating-point numbers."""
    result = tensor(name, value, 2, dtypes)
    if result.shape[1] == 0 or (result.shape[0] == 0 and not allow_no_rows):
        raise ValueError(f"{name}: expected a non-empty matrix, got shape {tuple(result.shape)}")
    return result


def vector_of_integers(name: str, value: Any, length: int, of: str, device: torch.device | None = None) -> Tensor:
    """``[length]`` integers (labels, identities, cameras) as int64; ``of`` says what the length must match.

    A tensor or array of any integer dtype, or a list, tuple or range of integers, which goes to ``device``.
    """
    if isinstance(value, LISTS):
        result = torch.tensor([_element(name, place, item) for place, item in enumerate(value)], dtype=torch.int64)
        result = result.to(device)
    else:
        result = tensor(name, value, 1, INTEGER)
    if result.shape[0] != length:
        raise ValueError(f"{name}: expected length {length}, one for each row of {of}, got {result.shape[0]}")
    if result.dtype is torch.uint64:
        wrapped = result.view(torch.int64) < 0
        if wrapped.device.type != "meta" and wrapped.any():
            place = int(wrapped.nonzero()[0, 0])
            _element(name, place, int(result.view(torch.int64)[place]) + 2**64)
    return result.to(torch.int64)


def _element(name: str, place: int, value: Any) -> int:
    """``value``, number ``place`` of a list of integers, if it is an integer that fits into int64."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected integers, got {value!r} at position {place}")
    try:
        result = value.__index__()
    except TypeError as error:  # a tensor or array of floats, or of more than one number
        raise TypeError(f"{name}: expected integers, got {value!r} at position {place}") from error
    if not -LARGEST_INTEGER - 1 <= result <= LARGEST_INTEGER:
        raise ValueError(f"{name}: expected integers from -2^63 to 2^63 - 1, got {result} at position {place}")
    return result


def same_device(**tensors: Tensor | None) -> None:
    """All tensors given are on one device."""
    present = {name: value.device for name, value in tensors.items() if value is not None}
    if len(set(present.values())) > 1:
        got = ", ".join(f"{name} on {device}" for name, device in present.items())
        raise ValueError(f"{', '.join(present)}: expected one device, got {got}")


def same_columns(**tensors: Tensor) -> None:
    """All matrices given have the same number of columns."""
    if len({value.shape[1] for value in tensors.values()}) > 1:
        got = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
        raise ValueError(f"{', '.join(tensors)}: expected the same number of columns, got {got}")


def same_shape(**tensors: Tensor) -> None:
    """All tensors given are of one shape."""
    if len({tuple(value.shape) for value in tensors.values()}) > 1:
        got = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
        raise ValueError(f"{', '.join(tensors)}: expected one shape, got {got}")


def changed_in_place(name: str, value: Any) -> None:
    """A tensor: what is changed in place cannot be a copy of something else."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, which is changed in place, got {type(value).__name__}")


def single_or_double(value: Tensor) -> Tensor:
    """``value`` in the dtype that ops compute in: float64 for float64, else float32."""
    return value if value.dtype in SINGLE_OR_DOUBLE else value.float()


def same_dtype(**tensors: Tensor) -> None:
    """All tensors given have one dtype."""
    if len({value.dtype for value in tensors.values()}) > 1:
        got = ", ".join(f"{name} {_names([value.dtype])}" for name, value in tensors.items())
        raise TypeError(f"{', '.join(tensors)}: expected one dtype, got {got}")


def integer(name: str, value: Any, *, low: int, high: int = LARGEST_INTEGER, high_name: str = "") -> int:
    """An integer in ``[low, high]``; ``high_name`` says what the upper bound is."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    result = value.__index__()
    if result < low:
        raise ValueError(f"{name}: expected at least {low}, got {result}")
    if result > high:
        raise ValueError(f"{name}: expected at most {high}{f' ({high_name})' if high_name else ''}, got {result}")
    return result


def real(name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, ends: str = "[]") -> float:
    """A finite number between ``low`` and ``high``; ``ends`` says which ends belong to the interval."""
    try:
        result = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a number, got {value!r}") from error
    above = result >= low if ends[0] == "[" else result > low
    below = result <= high if ends[1] == "]" else result < high
    if not (above and below and abs(result) < math.inf):
        left = "(" if math.isinf(low) else ends[0]
        right = ")" if math.isinf(high) else ends[1]
        raise ValueError(f"{name}: expected a number in {left}{low:g}, {high:g}{right}, got {result!r}")
    return result


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def renamed(**names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: errors of the calls inside name the caller's arguments: ``renamed(features="inputs")``."""
    words = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            if torch.compiler.is_compiling():
                return function(*args, **options)
            try:
                return function(*args, **options)
            except (TypeError, ValueError) as error:
                if type(error) not in (TypeError, ValueError):
                    raise
                raise type(error)(words.sub(lambda word: names[word[0]], str(error))) from error

        return run

    return decorate


def _sized(name: str, value: Any, shape: tuple[int, ...], dtypes: Sequence[torch.dtype]) -> Tensor:
    """A tensor of exactly this shape and one of ``dtypes``."""
    result = tensor(name, value, len(shape), dtypes)
    if result.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(result.shape)}")
    return result


def labels_or_weights(name: str, value: Any, rows: int, classes: int, device: torch.device) -> Tensor:
    """``[rows]`` integers, as int64, or ``[rows, classes]`` floating-point weights."""
    result = value if isinstance(value, LISTS) else as_tensor(name, value)
    if isinstance(result, LISTS) or not result.is_floating_point():
        return vector_of_integers(name, result, rows, "features", device)
    if result.dim() == 1:
        raise TypeError(
            f"{name}: expected dtype {_names(INTEGER)}, or weights of shape {(rows, classes)}, got "
            f"{_names([result.dtype])} of shape {tuple(result.shape)}"
        )
    result = _sized(name, result, (rows, classes), ANY_FLOAT)
    constant(name, result)
    return result


def temperature(name: str, value: Any, classes: int) -> tuple[float, Tensor | None]:
    """A number above 0 and None; or 1 and ``[classes]`` floating-point numbers, one for each column."""
    if isinstance(value, Tensor) and value.dim() > 0:
        value = _sized(name, value, (classes,), ANY_FLOAT)
        constant(name, value)
        return 1.0, value
    if isinstance(value, Tensor):
        constant(name, value)
    return real(name, value, low=0, ends="(]"), None


def mask(name: str, value: Any, rows: int, classes: int) -> Tensor | None:
    """``[rows, classes]`` bool, or None."""
    return None if value is None else _sized(name, value, (rows, classes), (torch.bool,))


def row_weights(name: str, value: Any, rows: int) -> Tensor | None:
    """``[rows]`` floating-point factors, or None."""
    if value is None:
        return None
    value = _sized(name, value, (rows,), ANY_FLOAT)
    constant(name, value)
    return value


def update_extras(
    memory: Tensor, labels: Tensor, mode: str, reference: Any, groups: Any, group_modes: Sequence[str]
) -> tuple[Tensor | None, Tensor | None]:
    """``reference`` and ``groups`` of an update of ``memory``, if the mode uses them; None otherwise."""
    if reference is not None:
        if mode != "hardest":
            raise ValueError(f"reference: expected None for mode {mode!r} (it is for 'hardest'), got a tensor")
        reference = matrix("reference", reference, SINGLE_OR_DOUBLE).detach()
        same_dtype(memory=memory, reference=reference)
        if reference.shape != memory.shape:
            raise ValueError(
                f"reference: expected shape {tuple(memory.shape)} as of memory, got {tuple(reference.shape)}"
            )
    if (groups is None) == (mode in group_modes):
        expected = "integers, one for each row of features," if groups is None else "None"
        raise ValueError(
            f"groups: expected {expected} for mode {mode!r}, got {'None' if groups is None else 'a tensor'}"
        )
    if groups is not None:
        groups = vector_of_integers("groups", groups, labels.shape[0], "features", labels.device)
    return reference, groups


def no_overlap(name: str, value: Tensor) -> None:
    """Every element of a matrix has its own storage, so that it can be changed."""
    (rows, columns), (down, across) = value.shape, value.stride()
    if rows > 1 and columns > 1 and down and across:
        common = math.gcd(down, across)
        overlap = across // common < rows and down // common < columns
    else:
        overlap = (rows > 1 and down == 0) or (columns > 1 and across == 0)
    if overlap:
        raise ValueError(
            f"{name}: expected elements that do not overlap in memory, because they are changed, got shape "
            f"{tuple(value.shape)} with strides {value.stride()}"
        )


def constant(name: str, value: Tensor | None) -> None:
    """A tensor that does not require a gradient, because none is computed for it."""
    if value is not None and torch.is_grad_enabled() and value.requires_grad:
        raise ValueError(f"{name}: expected a tensor that needs no gradient (none is computed for it; detach it)")


def numbers(name: str, value: Tensor) -> None:
    """No NaN; for a matrix the message names the first bad row."""
    bad = value.isnan()
    if bad.any():
        row = f" in row {int(bad.any(dim=1).nonzero()[0, 0])}" if value.dim() == 2 else ""
        raise ValueError(f"{name}: expected numbers, got NaN{row}")


def finite_rows(name: str, value: Tensor, first: int = 0) -> None:
    """No NaN and no infinity; the message names the first bad row, where ``value`` begins with row ``first``."""
    bad = ~torch.isfinite(value).all(dim=1)
    if bad.any():
        row = first + int(bad.nonzero()[0, 0])
        raise ValueError(f"{name}: expected finite values, got a non-finite value in row {row}")


def unit_rows(name: str, value: Tensor, tolerance: float = UNIT_NORM_TOLERANCE, first: int = 0) -> None:
    """Rows are finite and have unit Euclidean norm within ``tolerance``; the message names the first bad row.

    ``value`` begins with row ``first``.
    """
    finite_rows(name, value, first)
    norms = torch.linalg.vector_norm(value.double(), dim=1)
    bad = (norms - 1).abs() > tolerance
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"{name}: expected rows of unit norm within {tolerance:g} (torch.nn.functional.normalize), "
            f"got norm {float(norms[row]):g} in row {first + row}"
        )


def unit_features(name: str, value: Any) -> Tensor:
    """A ``[N, D]`` matrix of rows of unit norm, as float32 and detached.

    Rounding changes the norms of rows in half precision; they are normalised again. The norms of float32 rows are not
    checked here.
    """
    result = matrix(name, value, HALF_OR_SINGLE).detach()
    if result.dtype is torch.float32:
        return result
    result = result.float()
    unit_rows(name, result, HALF_NORM_TOLERANCE)
    return torch.nn.functional.normalize(result, dim=1)


def labels_in_range(name: str, value: Tensor, classes: int, ignore: int = -1) -> None:
    """Every label is in ``[0, classes)`` or equal to ``ignore``; the message names the first bad one."""
    bad = ((value < 0) | (value >= classes)) & (value != ignore)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"{name}: expected labels in [0, {classes}) or {ignore} (left out), got {int(value[row])} at position {row}"
        )


def distances(name: str, value: Any) -> Tensor:
    """A square, non-empty matrix of floating-point distances: dense, or sparse, converted to CSR."""
    if interop.is_scipy(value):
        result = interop.from_scipy(value, name)
    elif interop.is_cupy(value):
        result = interop.from_cupy(value, name)
    else:
        result = as_tensor(name, value)
    if result.layout not in (torch.strided, torch.sparse_csr, torch.sparse_csc, torch.sparse_coo):
        raise TypeError(f"{name}: expected a dense tensor or a sparse CSR, CSC or COO tensor, got {result.layout}")
    if result.dtype not in ANY_FLOAT:
        raise TypeError(f"{name}: expected dtype {_names(ANY_FLOAT)}, got {_names([result.dtype])}")
    if result.dim() != 2 or result.shape[0] != result.shape[1] or result.shape[0] == 0:
        raise ValueError(f"{name}: expected a non-empty square matrix, got shape {tuple(result.shape)}")
    return result if result.layout is torch.strided else interop.as_csr(result)


def cameras(query_cams: Any, gallery_cams: Any, of: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Cameras of the queries and of the gallery of a ``[Q, G]`` matrix, or None for both."""
    if (query_cams is None) != (gallery_cams is None):
        missing = "query_cams" if query_cams is None else "gallery_cams"
        raise ValueError(f"{missing}: expected the cameras of both query and gallery, or None for both, got None")
    if query_cams is None:
        return None, None
    return (
        vector_of_integers("query_cams", query_cams, of.shape[0], "distances", of.device),
        vector_of_integers("gallery_cams", gallery_cams, of.shape[1], "distances.T", of.device),
    )


def curve_length(name: str, value: Any, distances: Tensor) -> int:
    """Length of a CMC curve over the gallery of ``[Q, G]`` distances; longer ones are constant from G on."""
    most = max(distances.shape[1], 1_000_000)
    return integer(name, value, low=1, high=most, high_name="a million, or the size of the gallery")


NO_QUERY_MATCHES = "no query has a match in the gallery"

NO_MATCH = (
    "query_ids, gallery_ids: expected at least one query with a match in the gallery, got none; entries with the "
    "query's identity and camera do not count, so pass None as cameras if the images have none"
)
