"""The same names in the public function, the reference, the schema, the shape function and the glue."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from schemas import arguments_of, ops

import ccfast

ROOT = Path(__file__).parent.parent

#: The public functions that are ops.
PUBLIC: dict[str, Callable] = {
    name: getattr(ccfast, name)
    for name in ccfast.__all__
    if inspect.isfunction(getattr(ccfast, name)) and getattr(ccfast, name).__module__.startswith("ccfast.ops.")
}
#: Arguments that a reference does not have, and why.
NOT_IN_THE_REFERENCE = {
    "refine_neighbours": "knn is its reference: with all rows as candidates they give the same",
    "neighbours": "the reference searches for itself",
}
#: Arguments of the schemas that no public function has: values between the stages of an op.
BETWEEN_STAGES = {
    "row_begin": "first of the rows that are computed",
    "row_end": "the row after the last of those",
    "col_begin": "likewise for columns",
    "col_end": "likewise for columns",
    "crow": "of a sparse CSR matrix, as torch calls it",
    "col": "of a sparse CSR matrix, as torch calls it",
    "values": "of a sparse CSR matrix, as torch calls it",
    "rank": "[N, k1] the neighbours of each row, nearest first",
    "indices": "[Q, K] rows of features",
    "half": "columns of the half lists of rank",
    "row_scale": "[N] factor of the distances of a row",
    "column_shift": "[N] summand of the distances to a row",
    "feature_rows": "[N] where the features of a row are",
    "rows": "[Q + G, D] query and gallery, centred",
    "norms": "[Q + G] squared norms of rows",
    "inverse_farthest": "[Q + G] one over the largest distance of a row",
    "update_mode": "mode of update_memory_: torch.compile cannot take an op that writes and has an argument `mode`",
    "with_gradient": "whether the gradient of the features is computed with the loss",
    "temperatures": "[C] the temperature of each column, where it is not one number",
    "upstream": "gradient of a result, as autograd hands it to backward",
    "counts": "columns of each label, or positives of each row",
    "log_sums": "[B] logarithms of the sums of a softmax",
    "exponentials": "[B, K] exp(scores / epsilon)",
    "factors": "[K] of the columns",
}


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def shared(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The ``names`` that are among ``others``, in their order."""
    others = set(others)
    return [name for name in names if name in others]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_reference_has_the_signature_of_its_op(name: str) -> None:
    if name in NOT_IN_THE_REFERENCE:
        assert name not in ccfast.reference.__all__
        return

    def facts(function: Callable) -> list[tuple]:
        found = parameters(function).items()
        return [(key, value.kind, value.default) for key, value in found if key not in NOT_IN_THE_REFERENCE]

    assert facts(PUBLIC[name]) == facts(getattr(ccfast.reference, name))


@pytest.mark.parametrize("op", ops())
def test_a_schema_calls_things_as_the_public_functions_do(op: str) -> None:
    public = {argument for function in PUBLIC.values() for argument in parameters(function)}
    unknown = set(arguments_of(op)) - public - set(BETWEEN_STAGES)
    assert not unknown, "neither an argument of a public function nor known to pass between stages"


@pytest.mark.parametrize("name", sorted(set(PUBLIC) & set(ops())))
def test_a_schema_has_the_arguments_of_its_function_in_their_order(name: str) -> None:
    """All positional parameters; keyword-only parameters have no order."""
    ordered = [key for key, value in parameters(PUBLIC[name]).items() if value.kind is not value.KEYWORD_ONLY]
    found = arguments_of(name)
    assert shared(found, ordered) == shared(ordered, found)
    assert len(shared(found, parameters(PUBLIC[name]))) >= 2


def test_the_names_between_stages_are_all_in_use() -> None:
    assert set(BETWEEN_STAGES) <= {argument for op in ops() for argument in arguments_of(op)}


def shape_functions() -> dict[str, list[str]]:
    """The parameters of the functions that are registered with ``register_fake``, by op."""
    found = {}
    for path in (ROOT / "ccfast" / "ops").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if "register_fake" in ast.unparse(decorator):
                    op = ast.literal_eval(decorator.args[0]).removeprefix("ccfast::")
                    found[op] = [argument.arg for argument in node.args.args]
    return found


def test_shape_functions_have_the_arguments_of_the_schemas() -> None:
    assert shape_functions() == {op: arguments_of(op) for op in ops()}


def glue() -> list[tuple[str, str, list[str]]]:
    """(file, op, parameters) of each function that is registered with ``m.impl``."""
    found = []
    for path in sorted((ROOT / "csrc").rglob("*.cpp")):
        text = path.read_text(encoding="utf-8")
        for op, function in re.findall(r'm\.impl\("(\w+)",\s*(?:TORCH_FN\()?(\w+)', text):
            defined = re.search(rf"\b{function}\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*{{", text)
            assert defined, f"{path}: {function} is registered and not defined"
            names = [re.search(r"(\w+)\s*$", part)[1] for part in _split(defined[1])]
            found.append((str(path.relative_to(ROOT)), op, names))
    return found


def _split(parameters: str) -> list[str]:
    """Split at the commas outside angle brackets."""
    parts, depth = [""], 0
    for letter in parameters:
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


@pytest.mark.parametrize(("file", "op", "names"), glue(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_glue_has_the_arguments_of_the_schema(file: str, op: str, names: list[str]) -> None:
    assert names == arguments_of(op)
