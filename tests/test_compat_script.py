"""``python -m ccfast.compat SCRIPT``: what it replaces, what it leaves unchanged, and what the script sees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from compat_tree import CLUSTER_MEMORY, FAISS_RERANK, write_tree

import ccfast
from ccfast import compat
from ccfast.compat.replacements import MODULES, replace
from ccfast.compat.script import main

REPLACED = [
    "evaluation_metrics.ranking.cmc",
    "evaluation_metrics.ranking.mean_ap",
    "evaluators.evaluate_all",
    "evaluators.pairwise_distance",
    "models.cm.ClusterMemory",
    "models.cm.cm",
    "models.cm.cm_hard",
    "utils.data.sampler.RandomMultipleGallerySampler",
    "utils.faiss_rerank.compute_jaccard_distance",
    "utils.faiss_utils.search_raw_array_pytorch",
    "utils.rerank.re_ranking",
]


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(ccfast.__file__).parents[1]), str(tree)]
    return subprocess.run(
        [sys.executable, "-m", "ccfast.compat", *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_script_runs_unedited_on_these_functions(tmp_path: Path) -> None:
    done = run(write_tree(tmp_path), "examples/train.py", "--eps", "0.6", "-x")
    assert done.returncode == 3, done.stderr
    lines = done.stdout.splitlines()
    for name in REPLACED:
        assert lines.count(f"ccfast.compat: replaced contrast.{name}") == 1
    assert sum(line.startswith("ccfast.compat: replaced") for line in lines) == len(REPLACED)
    assert not any("alone" in line for line in lines)
    assert "clusters 6" in lines
    assert "moved before backward False" in lines and "moved by backward True" in lines
    assert "Mean AP: 100.0%" in lines and "  top-1         100.0%" in lines
    assert "re-ranked (30, 90)" in lines
    expected = "argv ['examples/train.py', '--eps', '0.6', '-x'] name __main__ helper beside the script"
    assert expected in lines


@pytest.mark.slow
def test_other_arguments_are_left_alone_and_named(tmp_path: Path) -> None:
    script = """\
from contrast.models.cm import ClusterMemory, cm
from contrast.utils.faiss_rerank import compute_jaccard_distance

print(ClusterMemory.__module__, cm.__module__, compute_jaccard_distance.__module__)
"""
    tree = write_tree(
        tmp_path,
        train=script,
        cm=CLUSTER_MEMORY.replace("use_hard=False", "mode='CM', hard_weight=0.5"),
        faiss_rerank=FAISS_RERANK.replace("use_float16=False", "use_float16=False, weights=None"),
    )
    done = run(tree, "--keep", "cm", "examples/train.py")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "contrast.models.cm contrast.models.cm contrast.utils.faiss_rerank"
    left = [line for line in lines if "alone" in line]
    assert len(left) == 2
    assert left[0].startswith("ccfast.compat: left alone contrast.models.cm.ClusterMemory: its arguments ")
    assert "__init__(self, num_features, num_samples, temp=0.05, momentum=0.2, mode='CM', hard_weight=0.5)" in left[0]
    assert "weights=None" in left[1]
    assert left[1].startswith("ccfast.compat: left alone contrast.utils.faiss_rerank.compute_jaccard_distance: ")


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), [([], "SCRIPT"), (["absent.py"], "expected a Python file")])
def test_a_script_that_is_not_there(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def module_of(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    exec(source, vars(module))
    return module


def test_defaults_of_the_repository_stay(capsys: pytest.CaptureFixture[str]) -> None:
    source = "def cm(inputs, indexes, features, momentum=0.9): raise RuntimeError"
    module = module_of("other.models.cm", source)
    replace(module, "cm")
    assert capsys.readouterr().out == "ccfast.compat: replaced other.models.cm.cm\n"
    memory, inputs = torch.eye(2), torch.tensor([[0.6, 0.8]], requires_grad=True)
    module.cm(inputs, torch.tensor([0]), memory).sum().backward()
    want = 0.9 * torch.tensor([1.0, 0.0]) + 0.1 * torch.tensor([0.6, 0.8])
    torch.testing.assert_close(memory[0], want / want.norm())


def test_defaults_of_a_class_stay() -> None:
    module = module_of("other.models.cm", CLUSTER_MEMORY.replace("temp=0.05, momentum=0.2", "temp=0.07, momentum=0.1"))
    replace(module, "ClusterMemory")
    memory = module.ClusterMemory(4, 3)
    assert isinstance(memory, compat.ClusterMemory)
    assert (memory.temp, memory.momentum, memory.use_hard) == (0.07, 0.1, False)


def test_openunreid_form_is_replaced_with_its_own_order_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    source = "def compute_jaccard_distance(features, k1=3, k2=2, search_option=0, fp16=False, verbose=False): pass"
    module = module_of("other.utils.compute_dist", source)
    replace(module, "compute_jaccard_distance")
    capsys.readouterr()
    found = module.compute_jaccard_distance(torch.eye(8), 4)
    assert capsys.readouterr().out == ""
    assert (found == compat.compute_jaccard_distance(torch.eye(8), 4, 2, False)).all()


def test_the_authors_form_is_this_package_itself() -> None:
    module = module_of("other.models.cm", CLUSTER_MEMORY)
    for name in ("ClusterMemory", "cm", "cm_hard"):
        replace(module, name)
        assert getattr(module, name) is getattr(compat, name)


def test_what_a_module_took_from_elsewhere_is_not_its_definition(capsys: pytest.CaptureFixture[str]) -> None:
    module = module_of("other.evaluators", "from sklearn.metrics import accuracy_score as re_ranking")
    replace(module, "re_ranking")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "source",
    [
        "def re_ranking(probFea, galFea, k1, k2, lambda_value, local_distmat=None, only_local=False): pass",
        "def re_ranking(q_g_dist, q_q_dist, g_g_dist, k1=20, k2=6, lambda_value=0.3, *, more=1): pass",
        "def re_ranking(*distances): pass",
        "class re_ranking: pass",
    ],
)
def test_unknown_forms_are_left(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = module_of("other.utils.rerank", source)
    before = module.re_ranking
    replace(module, "re_ranking")
    assert module.re_ranking is before
    assert "ccfast.compat: left alone other.utils.rerank.re_ranking" in capsys.readouterr().out


def test_every_name_that_is_replaced_is_there() -> None:
    assert set(MODULES) <= set(compat.__all__)
