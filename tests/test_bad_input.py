"""Wrong arguments: the right exception, and a message that names the argument, what it got and what it expects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
import torch
import torch.nn.functional as F
from conftest import Backend
from sample_inputs import memory_batch, retrieval_case, symmetric_distances, to_csr
from torch import Tensor

import ccfast

UNIT = F.normalize(torch.randn(12, 8, generator=torch.Generator().manual_seed(0)), dim=1)
LABELS = torch.arange(12) % 3
MEMORY, BATCH, BATCH_LABELS = memory_batch(clusters=4, dim=8, batch=6)
DISTANCES = symmetric_distances(12)
RANKING = dict(
    zip(("distances", "query_ids", "gallery_ids", "query_cams", "gallery_cams"), retrieval_case(), strict=True)
)


def changed(value: Tensor, row: int, to: float) -> Tensor:
    """A copy with another first value in ``row``."""
    value = value.clone()
    if value.dim() == 1:
        value[row] = int(to)
    else:
        value[row, 0] = to
    return value


def nan_csr() -> Tensor:
    return to_csr(changed(DISTANCES, 3, torch.nan), torch.ones(12, 12, dtype=torch.bool))


class Case(NamedTuple):
    arguments: dict[str, Any]
    error: type[Exception]
    words: tuple[str, ...]
    #: Errors in the values. On CUDA the ops of a training step do not look at values: they would wait for the GPU.
    data: bool = False


#: For each op: valid arguments, and changes that must be refused.
GOOD: dict[str, dict[str, Any]] = {
    "knn": {"features": UNIT, "k": 3},
    "k_reciprocal_encoding": {"features": UNIT, "k1": 5, "k2": 2},
    "jaccard_distance": {"features": UNIT, "k1": 5, "k2": 2},
    "dbscan": {"distances": DISTANCES, "eps": 0.5, "min_samples": 2},
    "infomap": {"features": UNIT, "k1": 5},
    "cluster_centroids": {"features": UNIT, "labels": LABELS},
    "update_memory_": {"memory": MEMORY, "features": BATCH, "labels": BATCH_LABELS},
    "centroid_contrastive_loss": {"features": BATCH, "memory": MEMORY, "labels": BATCH_LABELS},
    "k_reciprocal_rerank": {"query": UNIT[:4], "gallery": UNIT[4:], "k1": 5, "k2": 2},
    "evaluate_ranking": RANKING,
}


def matrix_cases(name: str, good: Tensor, wrong_dtype: torch.dtype) -> list[Case]:
    """What every argument with features must refuse."""
    dtype = str(wrong_dtype).removeprefix("torch.")
    return [
        Case({name: good.tolist()}, TypeError, (name, "list", "Tensor")),
        Case({name: None}, TypeError, (name, "NoneType", "Tensor")),
        Case({name: good.to(wrong_dtype)}, TypeError, (name, dtype, "float32")),
        Case({name: good.to_sparse()}, TypeError, (name, "sparse", "dense")),
        Case({name: good[0]}, ValueError, (name, "(8,)", "2 dimension")),
        Case({name: good[None]}, ValueError, (name, "(1, ", "2 dimension")),
        Case({name: good[:0]}, ValueError, (name, "(0, 8)", "non-empty")),
        Case({name: good[:, :0]}, ValueError, (name, ", 0)", "non-empty")),
    ]


def row_cases(name: str, good: Tensor, unit: bool) -> list[Case]:
    """Rows that are not finite or, where required, not of unit norm: the error names the first bad row."""
    cases = [
        Case({name: changed(good, row, value)}, ValueError, (name, "finite", f"row {row}"), data=True)
        for row, value in [(3, torch.nan), (0, torch.inf), (len(good) - 1, -torch.inf)]
    ]
    if unit:
        scaled = good.clone()
        scaled[2:] *= 1.002
        cases.append(Case({name: scaled}, ValueError, (name, "unit norm", "1.002", "row 2"), data=True))
        cases.append(Case({name: changed(good, 1, 0) * 0}, ValueError, (name, "unit norm", "row 0"), data=True))
    return cases


def beyond_int64(good: Tensor) -> np.ndarray:
    """The same number of values; the second does not fit into int64."""
    numbers = np.zeros(len(good), np.uint64)
    numbers[1] = 2**63 + 5
    return numbers


def integer_cases(name: str, low: int, high: int | None = None, high_word: str = "") -> list[Case]:
    cases = [
        Case({name: low - 1}, ValueError, (name, f"at least {low}", f"got {low - 1}")),
        Case({name: 2.5}, TypeError, (name, "integer", "2.5")),
        Case({name: "3"}, TypeError, (name, "integer", "'3'")),
        Case({name: None}, TypeError, (name, "integer", "None")),
        Case({name: True}, TypeError, (name, "integer", "True")),
        *[Case({name: huge}, ValueError, (name, "at most", f"got {huge}")) for huge in (2**63, 10**30)],
        Case({name: -(2**70)}, ValueError, (name, "at least", f"got {-(2**70)}")),
    ]
    if high is not None:
        cases.append(Case({name: high + 1}, ValueError, (name, f"at most {high}", high_word, f"got {high + 1}")))
    return cases


def number_cases(name: str, below: float | None, above: float | None) -> list[Case]:
    outside = [value for value in (below, above) if value is not None]
    return [
        Case({name: torch.nan}, ValueError, (name, "nan")),
        Case({name: torch.inf}, ValueError, (name, "inf")),
        Case({name: "a lot"}, TypeError, (name, "number", "a lot")),
        *[Case({name: value}, ValueError, (name, "number in", f"got {value!r}")) for value in outside],
    ]


def label_cases(name: str, good: Tensor) -> list[Case]:
    return [
        Case({name: good.float()}, TypeError, (name, "float32", "int64")),
        Case({name: good.bool()}, TypeError, (name, "bool", "int64")),
        Case({name: None}, TypeError, (name, "NoneType", "Tensor")),
        Case({name: [*good.tolist()[:-1], 1.5]}, TypeError, (name, "integers", f"1.5 at position {len(good) - 1}")),
        Case({name: [True, *good.tolist()[1:]]}, TypeError, (name, "integers", "True at position 0")),
        Case({name: ["0", *good.tolist()[1:]]}, TypeError, (name, "integers", "'0' at position 0")),
        Case({name: [[0], *good.tolist()[1:]]}, TypeError, (name, "integers", "[0] at position 0")),
        Case({name: [2**63, *good.tolist()[1:]]}, ValueError, (name, "2^63", f"{2**63} at position 0")),
        Case({name: (*good.tolist()[:-1], -(2**63) - 1)}, ValueError, (name, "2^63", f"position {len(good) - 1}")),
        Case({name: beyond_int64(good)}, ValueError, (name, "2^63", f"{2**63 + 5} at position 1")),
        Case({name: good.tolist()[:-1]}, ValueError, (name, str(len(good)), f"got {len(good) - 1}")),
        Case({name: []}, ValueError, (name, str(len(good)), "got 0")),
        Case({name: good[:-1]}, ValueError, (name, str(len(good)), f"got {len(good) - 1}")),
        Case({name: good[:, None]}, ValueError, (name, "1 dimension", f"({len(good)}, 1)")),
        Case({name: good.to("meta")}, ValueError, (name, "meta", "one device")),
    ]


BAD: dict[str, list[Case]] = {
    "knn": [
        *matrix_cases("features", UNIT, torch.float64),
        *row_cases("features", UNIT, unit=False),
        *row_cases("queries", UNIT[:5], unit=False),
        *integer_cases("k", 1, 12, "rows of features"),
        Case({"queries": UNIT[:, :7]}, ValueError, ("features", "queries", "(12, 7)", "same number of columns")),
        Case({"queries": UNIT.long()}, TypeError, ("queries", "int64", "float32")),
        Case({"queries": UNIT[:0]}, ValueError, ("queries", "(0, 8)", "non-empty")),
        Case({"queries": UNIT.to("meta")}, ValueError, ("features", "queries", "meta", "one device")),
        Case({"precision": "fp64"}, ValueError, ("precision", "'fp64'", "'fp32', 'fp16', 'bf16'")),
        Case({"precision": None}, ValueError, ("precision", "None", "'fp32'")),
    ],
    **{
        op: [
            *matrix_cases("features", UNIT, torch.float64),
            *row_cases("features", UNIT, unit=True),
            *integer_cases("k1", 1, 12, "rows of features"),
            *integer_cases("k2", 1, 5, "k1"),
        ]
        for op in ("k_reciprocal_encoding", "jaccard_distance")
    },
    "dbscan": [
        *matrix_cases("distances", DISTANCES, torch.int64)[:3],
        Case({"distances": DISTANCES.to_sparse_bsr((3, 3))}, TypeError, ("distances", "sparse_bsr", "CSR")),
        *[
            Case(
                {"distances": scipy.sparse.csr_matrix(DISTANCES.numpy()).asformat(name)}, TypeError, ("distances", name)
            )
            for name in ("lil", "dok", "dia", "bsr")
        ],
        Case(
            {"distances": scipy.sparse.csr_matrix(DISTANCES.numpy() > 0.5)}, TypeError, ("distances", "bool", "float32")
        ),
        Case({"distances": scipy.sparse.csr_array((5, 12))}, ValueError, ("distances", "square", "(5, 12)")),
        Case({"distances": DISTANCES[:5]}, ValueError, ("distances", "square", "(5, 12)")),
        Case({"distances": DISTANCES[0]}, ValueError, ("distances", "square", "(12,)")),
        Case({"distances": DISTANCES[:0, :0]}, ValueError, ("distances", "(0, 0)")),
        Case({"distances": to_csr(DISTANCES[:5], DISTANCES[:5] < 1)}, ValueError, ("distances", "square", "(5, 12)")),
        Case({"distances": changed(DISTANCES, 3, torch.nan)}, ValueError, ("distances", "NaN")),
        Case({"distances": nan_csr()}, ValueError, ("distances", "NaN")),
        *number_cases("eps", -0.1, None),
        *integer_cases("min_samples", 1),
    ],
    "infomap": [
        *matrix_cases("features", UNIT, torch.float64),
        *row_cases("features", UNIT, unit=True),
        *integer_cases("k1", 1, 12, "rows of features"),
        *number_cases("min_similarity", -1.1, 1.1),
        *integer_cases("min_cluster_size", 1),
    ],
    "cluster_centroids": [
        *matrix_cases("features", UNIT, torch.float16),
        *row_cases("features", UNIT, unit=False),
        *label_cases("labels", LABELS),
        Case({"labels": changed(LABELS, 4, -2)}, ValueError, ("labels", "-2", "-1", "position 4")),
        Case({"labels": torch.where(LABELS == 1, 0, LABELS)}, ValueError, ("labels", "expected", "1")),
    ],
    "update_memory_": [
        *matrix_cases("memory", MEMORY, torch.float16),
        Case({"memory": MEMORY.numpy()}, TypeError, ("memory", "ndarray", "Tensor")),
        *matrix_cases("features", BATCH, torch.float16),
        *row_cases("features", BATCH, unit=True),
        *label_cases("labels", BATCH_LABELS),
        Case({"features": BATCH.double()}, TypeError, ("memory", "features", "float64", "one dtype")),
        Case({"memory": MEMORY[:, :7]}, ValueError, ("memory", "features", "(4, 7)", "same number of columns")),
        Case({"labels": changed(BATCH_LABELS, 2, 4)}, ValueError, ("labels", "[0, 4)", "4", "position 2"), data=True),
        Case({"labels": changed(BATCH_LABELS, 5, -2)}, ValueError, ("labels", "-2", "position 5"), data=True),
        *number_cases("momentum", -0.1, 1.1),
        Case({"mode": "softest"}, ValueError, ("mode", "'softest'", "'sequential', 'hardest', 'mean'")),
    ],
    "centroid_contrastive_loss": [
        *matrix_cases("memory", MEMORY, torch.int64),
        *matrix_cases("features", BATCH, torch.int64),
        *row_cases("features", BATCH, unit=False),
        *row_cases("memory", MEMORY, unit=False)[:1],
        *label_cases("labels", BATCH_LABELS),
        Case({"memory": MEMORY[:, :7]}, ValueError, ("memory", "features", "(4, 7)", "same number of columns")),
        Case({"labels": changed(BATCH_LABELS, 2, 4)}, ValueError, ("labels", "[0, 4)", "4", "position 2"), data=True),
        Case({"labels": changed(BATCH_LABELS, 5, -2)}, ValueError, ("labels", "-2", "position 5"), data=True),
        Case({"labels": changed(BATCH_LABELS, 1, -1), "ignore_index": 9}, ValueError, ("labels", "-1"), data=True),
        *number_cases("temperature", 0.0, None),
        Case({"temperature": -0.05}, ValueError, ("temperature", "-0.05")),
        *number_cases("label_smoothing", -0.1, 1.1),
        Case({"reduction": "median"}, ValueError, ("reduction", "'median'", "'mean', 'sum', 'none'")),
        *integer_cases("ignore_index", -(2**63)),
    ],
    "k_reciprocal_rerank": [
        *matrix_cases("query", UNIT[:4], torch.float16),
        *matrix_cases("gallery", UNIT[4:], torch.float64),
        *row_cases("query", UNIT[:4], unit=False),
        *row_cases("gallery", UNIT[4:], unit=False),
        Case({"query": UNIT[:4, :7]}, ValueError, ("query", "gallery", "(4, 7)", "same number of columns")),
        Case({"gallery": UNIT.to("meta")}, ValueError, ("query", "gallery", "meta", "one device")),
        *integer_cases("k1", 1, 11, "query and gallery"),
        *integer_cases("k2", 1, 5, "k1"),
        *number_cases("lambda_value", -0.1, 1.1),
    ],
    "evaluate_ranking": [
        Case({"distances": RANKING["distances"].tolist()}, TypeError, ("distances", "list", "Tensor")),
        Case({"distances": RANKING["distances"].long()}, TypeError, ("distances", "int64", "float32")),
        Case({"distances": RANKING["distances"][0]}, ValueError, ("distances", "(60,)", "2 dimension")),
        Case({"distances": RANKING["distances"][:, :0]}, ValueError, ("distances", "(20, 0)", "non-empty")),
        Case({"distances": changed(RANKING["distances"], 5, torch.nan)}, ValueError, ("distances", "NaN")),
        *[case for name in ("query_ids", "gallery_ids") for case in label_cases(name, RANKING[name])],
        *[
            case
            for name in ("query_cams", "gallery_cams")
            for case in label_cases(name, RANKING[name])
            if case.arguments[name] is not None  # without cameras: query and gallery must agree; see below
        ],
        Case({"query_cams": None}, ValueError, ("query_cams", "both", "None")),
        Case({"gallery_cams": None}, ValueError, ("gallery_cams", "both", "None")),
        *integer_cases("max_rank", 1, 1_000_000, "gallery"),
        *integer_cases("junk_id", -(2**63))[:3],
        Case({"query_ids": torch.full((20,), 99)}, ValueError, ("query_ids", "match", "none")),
        Case(
            {"query_cams": torch.zeros(20, dtype=torch.int64), "gallery_cams": torch.zeros(60, dtype=torch.int64)},
            ValueError,
            ("gallery_ids", "camera", "match"),
        ),
    ],
}
BAD["jaccard_distance"] += [
    Case({"max_distance": 1}, ValueError, ("max_distance", "[0, 1)", "1")),
    *number_cases("max_distance", -0.1, 1.5),
]
FLAT = [(op, index) for op, cases in BAD.items() for index in range(len(cases))]


def name_of(value: Any) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__ if isinstance(value, list) else repr(value)


def describe(op: str, index: int) -> str:
    case = BAD[op][index]
    return f"{op}-{index}-" + ",".join(f"{name}={name_of(value)}" for name, value in case.arguments.items())


def call(module: ModuleType, backend: Backend, op: str, **changes: Any) -> Any:
    def put(value: Any) -> Any:
        # Meta tensors represent another device.
        return backend(value.clone()) if isinstance(value, Tensor) and value.device.type != "meta" else value

    function: Callable[..., Any] = getattr(module, op)
    return function(**{name: put(value) for name, value in (GOOD[op] | changes).items()})


@pytest.mark.parametrize("op", GOOD)
def test_the_arguments_that_the_cases_change_are_good_themselves(
    implementation: ModuleType, backend: Backend, op: str
) -> None:
    if op == "infomap":
        pytest.importorskip("infomap")
    call(implementation, backend, op)


@pytest.mark.parametrize("op, index", FLAT, ids=[describe(*flat) for flat in FLAT])
def test_bad_input_is_refused_by_name(implementation: ModuleType, backend: Backend, op: str, index: int) -> None:
    case = BAD[op][index]
    if case.data and backend.name != "cpu" and op in ("update_memory_", "centroid_contrastive_loss"):
        pytest.skip("the CUDA kernels of a training step do not wait for a look at the data")
    with pytest.raises(case.error) as caught:
        call(implementation, backend, op, **case.arguments)
    assert type(caught.value) is case.error, "not a subclass that happens to fit"
    message = str(caught.value)
    missing = [word for word in case.words if word not in message]
    assert not missing, f"{missing} not in {message!r}"


@pytest.mark.parametrize("op", BAD)
def test_one_mistake_has_one_message(backend: Backend, op: str) -> None:
    """Whether Python, C++ and the reference find the error."""
    for case in BAD[op]:
        if case.data and backend.name != "cpu" and op in ("update_memory_", "centroid_contrastive_loss"):
            continue
        messages = []
        for module in (ccfast, ccfast.reference):
            with pytest.raises(case.error) as caught:
                call(module, backend, op, **case.arguments)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


@pytest.mark.parametrize("op", ccfast.reference.__all__)
def test_the_bad_input_of_every_op_is_covered(op: str) -> None:
    """In this file or in another one."""
    family = getattr(ccfast, op).__module__.rpartition(".")[2]
    own = (Path(__file__).parent / f"test_{family}.py").read_text(encoding="utf-8")
    assert op in BAD.keys() & GOOD.keys() or ("pytest.raises" in own and f".{op}(" in own)


def test_features_within_the_tolerance_of_unit_norm_are_accepted(implementation: ModuleType, backend: Backend) -> None:
    for scale in (1 - 9e-4, 1 + 9e-4):
        implementation.jaccard_distance(backend(UNIT * scale), 5, 2)
        implementation.update_memory_(backend(MEMORY.clone()), backend(BATCH * scale), backend(BATCH_LABELS))
