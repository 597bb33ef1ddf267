"""The PTX executor itself: the results of its instructions, and the faults and races that it must find."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # the executor is in the repository, not in the installed package

from tests.ptx import build, executor  # noqa: E402

if build.missing():
    pytest.skip(f"runs nvcc's code: {build.missing()}", allow_module_level=True)

KERNELS = ROOT / "tests" / "ptx" / "kernels"
SEEDS = 20


@pytest.fixture(scope="module")
def launch() -> Callable[..., None]:
    """``launch(file, kernel, grid, block, shared_bytes, *arguments, seed=None)``."""

    executor.core()  # from now on it knows the tensors that are created

    def run(
        file: str, kernel: str, grid: int, block: int, shared: int, *arguments: Any, seed: int | None = None
    ) -> None:
        executor.configure(seed=seed)
        executor.run(executor.load_once(build.ptx(KERNELS / f"{file}.cu")), kernel, grid, block, shared, *arguments)

    return run


# --- arithmetic ---

FLOATS = [0.0, -0.0, 1.0, -1.5, 3.7, 1e-40, 6.1e-5, 65519.0, 65520.0, 3e38, -3e38, math.inf, -math.inf, math.nan]
FLOATS += [2.5, 3.5, -2.5, 2147483648.0, -2147483904.0, 4294967296.0, 2.0**-24, 2.0**-25, 1.0009765, 0.1]
WORDS = [0, 1, 2, 3, 5, 7, 31, 32, 33, 63, 0x7F, 0x80, 0xFFFF, 0x10000, 0x12345678, 0x7FFFFFFF]
SIGNED = WORDS + [-number for number in WORDS] + [-(2**31)]
LONGS = [*WORDS, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**62 + 3, 2**63 - 1]
#: 4097 squared is half way between two float32 numbers; the third operand decides unless the sum is rounded twice.
HALF_WAY = [(4097.0, 4097.0, sign * 2.0**-40) for sign in (1, -1)]


def _many(values: list, dtype: type, more: Callable[[np.random.Generator], np.ndarray]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    operands = []
    for turn in range(3):
        chosen = generator.permutation(np.array(values, dtype=dtype)) if turn else np.array(values, dtype=dtype)
        operands.append(np.concatenate([chosen, more(generator).astype(dtype)]))
    return operands


def _floats(dtype: type = np.float32) -> list[np.ndarray]:
    operands = _many(
        FLOATS, dtype, lambda generator: generator.standard_normal(160) * 10.0 ** generator.integers(-6, 6, 160)
    )
    return [
        np.concatenate([values, np.array(column, dtype=dtype)])
        for values, column in zip(operands, zip(*HALF_WAY, strict=True), strict=True)
    ]


def _integers(dtype: type) -> list[np.ndarray]:
    limits = np.iinfo(dtype)
    values = LONGS if limits.bits == 64 else WORDS
    values = [*values, *(-number for number in values)] if limits.min else [*values, limits.max]
    return _many(values, dtype, lambda generator: generator.integers(limits.min, limits.max, 160, dtype))


def _fused(a: float, b: float, c: float, dtype: type, down: bool = False) -> float:
    with np.errstate(all="ignore"):
        plain = dtype(dtype(a) * dtype(b)) + dtype(c)
    if not all(map(math.isfinite, (a, b, c))):
        return plain
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return plain
    with np.errstate(over="ignore"):
        near = dtype(float(exact))
    if math.isinf(near):
        return near if not (down and exact > 0) else np.finfo(dtype).max
    around = [np.nextafter(near, dtype(-math.inf)), near, np.nextafter(near, dtype(math.inf))]
    around = [value for value in around if math.isfinite(value)]
    if down:
        return max(value for value in around if Fraction(float(value)) <= exact)
    even = int(np.array(near).view(np.uint32 if dtype is np.float32 else np.uint64)) % 2 == 0
    return min(around, key=lambda value: (abs(Fraction(float(value)) - exact), value != near or not even))


def _wrap(value: int, dtype: type) -> int:
    bits = np.iinfo(dtype).bits
    value %= 2**bits
    return value - 2**bits if np.iinfo(dtype).min and value >= 2 ** (bits - 1) else value


def _quotient(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _saturated(value: float, dtype: type, round_: Callable[[float], int] = int) -> int:
    limits = np.iinfo(dtype)
    if math.isnan(value):
        return 0
    if abs(value) >= 2**63:
        return limits.max if value > 0 else limits.min
    return min(max(round_(value), limits.min), limits.max)


def _permuted(a: int, b: int, selector: int) -> int:
    both = [(a | b << 32) >> 8 * byte & 0xFF for byte in range(8)]
    picked = [selector >> 4 * byte & 7 for byte in range(4)]  # __byte_perm has no sign mode
    return sum(both[pick] << 8 * byte for byte, pick in enumerate(picked))


U32, I32, U64, I64, F32, F64 = np.uint32, np.int32, np.uint64, np.int64, np.float32, np.float64

#: kernel: (type of the operands, type of the result, expected function)
EXPRESSIONS: dict[str, tuple[type, type, Callable[..., Any]]] = {
    "fma_f32": (F32, F32, lambda a, b, c: _fused(a, b, c, F32)),
    "fma_down_f32": (F32, F32, lambda a, b, c: _fused(a, b, c, F32, down=True)),
    "fma_f64": (F64, F64, lambda a, b, c: _fused(a, b, c, F64)),
    "divide_f32": (F32, F32, lambda a, b, c: np.divide(a, b)),
    "root_f32": (F32, F32, lambda a, b, c: np.sqrt(a)),
    "least_f32": (F32, F32, lambda a, b, c: np.fmin(a, b)),
    "greatest_f32": (F32, F32, lambda a, b, c: np.fmax(a, b)),
    "less_f32": (F32, I32, lambda a, b, c: (a < b) + 2 * (a <= b) + 4 * (a == b) + 8 * (a != b) + 16 * (not a > b)),
    "to_half": (F32, U32, lambda a, b, c: int(np.float16(a).view(np.uint16))),
    "to_i32": (F32, I32, lambda a, b, c: _saturated(float(a), I32)),
    "to_nearest_i32": (F32, I32, lambda a, b, c: _saturated(float(a), I32, round)),
    "to_u32": (F32, U32, lambda a, b, c: _saturated(float(a), U32)),
    "from_i64": (I64, F32, lambda a, b, c: F32(a)),
    "from_u64": (U64, F32, lambda a, b, c: F32(a)),
    "f64_to_f32": (F64, F32, lambda a, b, c: F32(a)),
    "divide_i32": (I32, I32, lambda a, b, c: _wrap(_quotient(a, b), I32)),
    "remainder_i32": (I32, I32, lambda a, b, c: a - _quotient(a, b) * b if b else 0),
    "divide_u64": (U64, U64, lambda a, b, c: _quotient(a, b)),
    "remainder_i64": (I64, I64, lambda a, b, c: a - _quotient(a, b) * b if b else 0),
    "high_u32": (U32, U32, lambda a, b, c: a * b >> 32),
    "high_i32": (I32, I32, lambda a, b, c: a * b >> 32),
    "high_u64": (U64, U64, lambda a, b, c: a * b >> 64),
    "high_i64": (I64, I64, lambda a, b, c: a * b >> 64),
    "wide_i32": (I32, I64, lambda a, b, c: a * b + c),
    "shift_left_u32": (U32, U32, lambda a, b, c: _wrap(a << b, U32) if b < 32 else 0),
    "shift_right_i64": (I64, I64, lambda a, b, c: a >> (b & 63)),
    "funnel_left": (U32, U32, lambda a, b, c: _wrap((b << 32 | a) << c % 32 >> 32, U32)),
    "funnel_right_clamped": (U32, U32, lambda a, b, c: _wrap((b << 32 | a) >> min(c, 32), U32)),
    "permute_bytes": (U32, U32, _permuted),
    "mixed_bits": (U32, U32, lambda a, b, c: _wrap((a & b) ^ (~b | c), U32)),
    "ones_u64": (U64, I32, lambda a, b, c: a.bit_count()),
    "zeros_u32": (U32, I32, lambda a, b, c: 32 - a.bit_length()),
    "zeros_u64": (U64, I32, lambda a, b, c: 64 - a.bit_length()),
    "first_u64": (U64, I32, lambda a, b, c: (a & -a).bit_length()),
    "reversed_u32": (U32, U32, lambda a, b, c: int(f"{a:032b}"[::-1], 2)),
    "reversed_u64": (U64, U64, lambda a, b, c: int(f"{a:064b}"[::-1], 2)),
}
UNDEFINED_BY_ZERO = ("divide_i32", "remainder_i32", "divide_u64", "remainder_i64")


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).clone()  # clone: in memory that the executor knows


def _compute(launch: Callable[..., None], kernel: str, operands: list[np.ndarray], result: type) -> np.ndarray:
    out = torch.zeros(len(operands[0]), dtype=_tensor(np.zeros(1, result)).dtype)
    launch("arithmetic", kernel, 1, len(out), 0, *map(_tensor, operands), out)
    return out.numpy()


@pytest.mark.parametrize("kernel", EXPRESSIONS)
def test_instructions_compute_what_they_should(launch: Callable[..., None], kernel: str) -> None:
    operand, result, expected = EXPRESSIONS[kernel]
    operands = _floats(operand) if issubclass(operand, np.floating) else _integers(operand)
    if kernel in UNDEFINED_BY_ZERO:
        operands[1][operands[1] == 0] = 9
    found = _compute(launch, kernel, operands, result)
    scalars = zip(
        *(values if issubclass(operand, np.floating) else values.tolist() for values in operands), strict=True
    )
    with np.errstate(all="ignore"):
        wanted = np.array([expected(*values) for values in scalars], dtype=result)
    np.testing.assert_array_equal(found, wanted)
    if issubclass(result, np.floating) and kernel != "fma_down_f32":
        numbers = ~np.isnan(wanted) & (wanted != 0 if "least" in kernel or "greatest" in kernel else True)
        np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(wanted[numbers]))


@pytest.mark.slow
def test_all_halves_become_floats(launch: Callable[..., None]) -> None:
    for first in range(0, 1 << 16, 1024):
        bits = np.arange(first, first + 1024, dtype=np.uint32)
        found = _compute(launch, "from_half", [bits] * 3, F32)
        np.testing.assert_array_equal(found, bits.astype(np.uint16).view(np.float16).astype(F32))


def test_pairs_of_halves_are_compared(launch: Callable[..., None]) -> None:
    a, b = np.random.default_rng(0).integers(0, 1 << 32, (2, 1024), dtype=U32)
    b[::3] = a[::3]
    b[1::3] = (b[1::3] & 0xFFFF0000) | (a[1::3] & 0xFFFF)
    found = _compute(launch, "halves_at_least", [a, b, b], U32)
    halves = (a.view(np.float16) >= b.view(np.float16)).astype(np.float16)
    np.testing.assert_array_equal(found, halves.view(U32))


@pytest.mark.parametrize(
    ("kernel", "function", "dtype"),
    [
        ("exponential_f32", np.exp, F32),
        ("exponential_f64", np.exp, F64),
        ("logarithm_f32", np.log, F32),
        ("inverse_root_f64", lambda a: 1 / np.sqrt(a), F64),
    ],
)
def test_functions_of_the_cuda_library(launch: Callable[..., None], kernel: str, function: Any, dtype: type) -> None:
    values = np.concatenate([np.linspace(0.01, 80, 400), 10.0 ** np.linspace(-30, 1, 100)]).astype(dtype)
    found = _compute(launch, kernel, [values] * 3, dtype)
    np.testing.assert_allclose(
        found, function(values.astype(np.float64)), rtol=8 * np.finfo(dtype).eps, atol=1e-7 if "log" in kernel else 0
    )


LANES = np.arange(32)
COLLECTIVES = ("shuffled", "shuffled_by_8", "shuffled_up", "shuffled_down_by_16", "shuffled_across")
COLLECTIVES += ("ballot", "any_and_all", "matching", "diverged")


def _collective(kernel: str, a: np.ndarray, b: np.ndarray) -> Any:
    votes = sum(1 << lane for lane in LANES if a[lane] & 1)
    threes = a % 3 == 0
    return {
        "shuffled": a[b % 32],
        "shuffled_by_8": a[LANES // 8 * 8 + b % 8],
        "shuffled_up": np.where(LANES >= 3, a[LANES - 3], a),
        "shuffled_down_by_16": np.where(LANES % 16 + 5 < 16, a[(LANES + 5) % 32], a),
        "shuffled_across": a[LANES ^ 9],
        "ballot": [votes] * 32,
        "any_and_all": [int((a == 7).any()) + 2 * int((a != 7).all())] * 32,
        "matching": [sum(1 << lane for lane in LANES if a[lane] % 5 == value % 5) for value in a],
        "diverged": [
            sum(1 << lane for lane in LANES if threes[lane] == mine and (a if mine else b)[lane] & 1) for mine in threes
        ],
    }[kernel]


@pytest.mark.parametrize("kernel", COLLECTIVES)
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_lanes_exchange_values(launch: Callable[..., None], kernel: str, seed: int | None) -> None:
    dtype = U64 if kernel == "shuffled_across" else U32
    a, b = (np.random.default_rng(seed or 0).integers(0, 1000, 32).astype(dtype) for _ in range(2))
    out = _tensor(np.zeros(32, I32 if kernel == "any_and_all" else dtype))
    launch("arithmetic", kernel, 1, 32, 0, _tensor(a), _tensor(b), _tensor(b), out, seed=seed)
    np.testing.assert_array_equal(out.numpy(), _collective(kernel, a.astype(I64), b.astype(I64)))


BITWISE = (np.bitwise_or.reduce, np.bitwise_and.reduce, np.bitwise_xor.reduce)


@pytest.mark.parametrize(
    ("kernel", "dtype", "start", "expected"),
    [
        ("atomic_sum_u64", U64, [5, 0], lambda a: [_wrap(5 + sum(a), U64)]),
        ("atomic_sum_f32", F32, [0, 0], lambda a: [sum(a)]),
        ("atomic_sum_f64", F64, [0, 0], lambda a: [sum(a)]),
        ("atomic_least_i64", I64, [2**62, 0], lambda a: [min(a)]),
        ("atomic_greatest_u64", U64, [0, 0], lambda a: [max(a)]),
        ("atomic_bits", U32, [0, 2**32 - 1, 0], lambda a: [reduce(a) for reduce in BITWISE]),
        ("atomic_turns", U32, [0, 3], lambda a: [len(a) % 13, (3 - len(a)) % 13]),
        ("atomic_product_u64", U64, [0, 1], lambda a: [0, _wrap(math.prod(int(value) | 1 for value in a), U64)]),
    ],
)  # fmt: skip
def test_no_atomic_is_lost(launch: Callable[..., None], kernel: str, dtype: type, start: list, expected: Any) -> None:
    a = np.random.default_rng(3).integers(1, 2**40 if np.dtype(dtype).itemsize == 8 and dtype != F64 else 2**15, 64)
    a = a.astype(dtype)
    for seed in (None, 1, 2):
        out = _tensor(np.array(start, dtype))
        launch("arithmetic", kernel, 1, 64, 0, _tensor(a), _tensor(a), _tensor(a), out, seed=seed)
        wanted = expected(a if dtype == U32 else a.tolist())
        assert out.tolist()[: len(wanted)] == [type(out.tolist()[0])(value) for value in wanted]


def test_static_shared_and_local_memory(launch: Callable[..., None]) -> None:
    a = np.arange(32, dtype=U32) * 7
    b = np.arange(32, dtype=U32) * 2
    found = _compute(launch, "static_memory", [a, b, b], U32)
    wanted = []
    for thread in range(32):
        mine = {(n + int(b[n])) % 8: int(a[(thread + n) % 32]) for n in range(8)}
        wanted.append(mine[int(a[thread]) % 8] + int(b[31 - thread]))
    np.testing.assert_array_equal(found, wanted)


# --- faults of memory and barriers ---


@pytest.mark.parametrize(
    ("kernel", "words", "message"),
    [
        ("write_beyond", 64, "out of bounds: 4 bytes that no allocation holds"),
        ("read_before", 64, "out of bounds"),
        ("read_misaligned", 65, "misaligned access"),
        ("read_misaligned_pair", 64, "misaligned access"),
        ("add_unwritten", 64, "uses shared memory that nobody has written"),
        ("add_what_a_quarter_wrote", 64, "uses shared memory that nobody has written"),
        ("branch_on_unwritten", 64, "uses shared memory that nobody has written"),
        ("add_atomically_to_unwritten", 64, "changes shared memory that nobody has written"),
        ("write_beyond_shared", 64, r"shared memory: out of bounds: byte 1024 of 1024"),
        ("barrier_of_some", 64, r"no thread can go on; 31 threads have exited; 33 at the barrier faults.cu:\d+"),
        ("two_barriers", 64, r"no thread can go on; .* at the barrier .* at the barrier"),
        ("shuffle_of_some", 64, "a mask with a lane that has exited"),
    ],
)
@pytest.mark.parametrize("seed", [None, 1])
def test_faults_are_reported(
    launch: Callable[..., None], kernel: str, words: int, message: str, seed: int | None
) -> None:
    data = torch.zeros(words, dtype=torch.int32)
    data[33:] = 1
    shared = 256 if kernel != "write_beyond_shared" else 1024
    threads = 64 if kernel != "write_beyond_shared" else 256
    with pytest.raises(RuntimeError, match=message):
        launch("faults", kernel, 1, threads, shared, data, seed=seed)


def test_what_is_no_fault_passes(launch: Callable[..., None]) -> None:
    data = torch.zeros(64, dtype=torch.int32)
    launch("faults", "write_within", 1, 64, 0, data)
    assert data.tolist() == [1] * 64
    launch("faults", "copy_padding", 1, 64, 64 * 16, data)
    assert data.tolist() == [6] * 64


def test_a_report_names_block_thread_and_line(launch: Callable[..., None]) -> None:
    line = next(
        n for n, text in enumerate((KERNELS / "faults.cu").read_text().splitlines(), 1) if "write_beyond(" in text
    )
    with pytest.raises(RuntimeError, match=rf"block 0, thread 63: .* at faults.cu:{line} \(st.global.u32"):
        launch("faults", "write_beyond", 1, 64, 0, torch.zeros(64, dtype=torch.int32))


def test_freed_memory_is_out_of_bounds(launch: Callable[..., None]) -> None:
    data = torch.zeros(64, dtype=torch.int32)
    address = ctypes.c_void_p(data.data_ptr())
    del data
    with pytest.raises(RuntimeError, match="out of bounds"):
        launch("faults", "write_within", 1, 64, 0, address)


def test_torch_computes_as_before_while_its_memory_is_watched(launch: Callable[..., None]) -> None:
    images, weight = torch.ones(8, 3, 32, 16), torch.ones(32, 3, 3, 3)
    result = torch.nn.functional.conv2d(images, weight)  # oneDNN requests memory from the allocator directly
    assert result.eq(27).all()


# --- races ---


def _run_race(launch: Callable[..., None], kernel: str, seed: int | None) -> tuple[str, Tensor]:
    data = torch.arange(256, dtype=torch.int32)
    if "flatten" in kernel:
        data = (data - 1).clamp_min(0)
    if "byte" in kernel:
        data = torch.zeros(256, dtype=torch.uint8)
    if "message" in kernel:
        data = torch.zeros(256, dtype=torch.int32)
    grid, block = (2, 64) if "message" in kernel or "twice" in kernel else (4, 64)
    try:
        launch("races", kernel, grid, block, 4 * block, data, seed=seed)
    except RuntimeError as error:
        return str(error), data
    return "", data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("racing", "sound"),
    [
        ("flatten_and_halve", "flatten"),
        ("turn_without_barrier", "turn"),
        ("turn_twice_with_two_barriers", "turn_twice"),
        ("swap_without_syncwarp", "swap"),
        ("swap_across_halves", "swap_halves_of_warps"),
        ("count_plainly", "count"),
        ("write_same_byte", "write_own_byte"),
        ("message_without_fence", "message"),
        ("message_without_fence", "message_of_a_block"),
    ],
)
def test_races_are_found_and_only_they(launch: Callable[..., None], racing: str, sound: str) -> None:
    expected = _run_race(launch, sound, None)[1]
    for seed in (None, *range(SEEDS)):
        assert _run_race(launch, sound, seed)[0] == ""
        assert torch.equal(_run_race(launch, sound, seed)[1], expected)
    if racing == "flatten_and_halve":  # every access is volatile: no data race, but wrong roots
        wrong = [not torch.equal(_run_race(launch, racing, seed)[1], expected) for seed in range(5 * SEEDS)]
        assert sum(wrong) >= SEEDS
    else:
        reports = [_run_race(launch, racing, seed)[0] for seed in range(SEEDS)]
        assert all("race in" in report or "nobody has written" in report for report in reports)


def test_a_seed_repeats_its_run(launch: Callable[..., None]) -> None:
    runs = [_run_race(launch, "flatten_and_halve", seed)[1] for seed in (*range(9), *range(9))]
    assert all(torch.equal(first, second) for first, second in zip(runs[:9], runs[9:], strict=True))
    assert any(not torch.equal(runs[0], other) for other in runs[1:9])


def test_the_project_s_flatten_has_no_race() -> None:
    module = executor.load_once(build.ptx(build.CSRC / "dbscan" / "dbscan_cuda.cu"))
    for seed in range(5 * SEEDS):
        parent = (torch.arange(256, dtype=torch.int32) - 1).clamp_min(0)
        executor.configure(seed=seed)
        core, is_root = torch.ones(256, dtype=torch.bool), torch.full((256,), -1)
        executor.run(module, "flatten_kernel", 8, 32, 0, ctypes.c_int64(256), core, parent, is_root)
        assert not parent.any()
        assert is_root[0] == 1
        assert not is_root[1:].any()
