"""The start of the command line: no torch if none is needed, and decisions before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ccfast
from ccfast import _processors, _program
from ccfast.cli import COMMANDS

HELP = [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]
CHOSEN_HERE = ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", *_program.WAITING)


@pytest.fixture
def script(tmp_path):
    """The console script that pip writes."""
    path = tmp_path / "bin" / "ccfast"
    path.parent.mkdir()
    path.write_text("import sys\nfrom ccfast.cli import main\nsys.exit(main())\n")
    return [sys.executable, str(path)]


def started(command, *, cwd=None, path=(), **variables):
    """Runs ``command`` in an environment whose only settings of threads are ``variables``."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN_HERE}
    search = [*path, Path(ccfast.__file__).parents[1], environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, search)), **variables}
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def without_torch(tmp_path):
    """A folder whose torch and numpy cannot be imported."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for package in ("torch", "numpy"):
        (folder / f"{package}.py").write_text(f"raise AssertionError('{package} is imported')\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help_and_version_import_no_torch(arguments, script, without_torch):
    for program in (script, [sys.executable, "-m", "ccfast"]):
        done = started([*program, *arguments], path=[without_torch])
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("ccfast " if "--version" in arguments else "usage: ccfast")


def test_arguments_that_do_not_parse_import_no_torch(script, without_torch):
    done = started([*script, "train", "--epochs", "few"], path=[without_torch])
    assert done.returncode == 2
    assert "--epochs: invalid int value: 'few'" in done.stderr


def test_version_is_the_packages(script):
    assert started([*script, "--version"]).stdout.split()[1].rstrip(",") == ccfast.__version__


@pytest.mark.slow
def test_importing_the_package_brings_its_names_and_registers_its_ops():
    done = started(
        [
            sys.executable,
            "-c",
            "import ccfast, torch; torch.ops.ccfast.knn\n"
            "assert set(ccfast.__all__) <= set(dir(ccfast)) and ccfast.__version__\n"
            "from ccfast import *; knn, nn.ClusterMemory, compat.ClusterMemory, RankingMetrics\n"
            "from ccfast.training import *; TrainConfig, TrainResult, train\n",
        ]
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_program_has_the_same_names_as_the_package(script):
    """Where they are resolved on first use."""
    Path(script[1]).write_text(
        "import sys, ccfast\n"
        "assert 'torch' not in sys.modules\n"
        "assert callable(ccfast.knn) and ccfast.nn.ClusterMemory and ccfast.__version__\n"
        "import torch; torch.ops.ccfast.knn\n"
        "assert not hasattr(ccfast, 'nothing') and not hasattr(ccfast, '_nothing')\n"
    )
    done = started(script)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_module_that_imports_ccfast_is_not_the_program(tmp_path):
    """``python -m other ccfast``: the package is imported as usual."""
    package = tmp_path / "other"
    package.mkdir()
    (package / "__init__.py").write_text("import ccfast, torch\ntorch.ops.ccfast.knn\n")
    (package / "__main__.py").write_text("print('done')\n")
    done = started([sys.executable, "-m", "other", "ccfast"], path=[tmp_path])
    assert done.stdout == "done\n", done.stderr


@pytest.mark.slow
def test_a_package_that_is_not_built_is_one_error(script):
    program = Path(script[1])
    program.write_text("import sys\nsys.modules['ccfast._build_config'] = None\n" + program.read_text())
    for arguments, name in ((["info"], "ccfast info"), (["--version"], "ccfast")):
        done = started([*script, *arguments])
        assert done.returncode == 1
        assert done.stderr.startswith(f"{name}: ") and "has not been built" in done.stderr
        assert "Traceback" not in done.stderr


# -- threads


def chosen(monkeypatch, *, usable=8, quotas=(), **environment):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(_processors, "usable_processors", lambda: usable)
    monkeypatch.setattr(_program, "usable_processors", lambda: usable)
    monkeypatch.setattr(_processors, "_quotas", lambda: iter(quotas))
    _program.choose_threads(environment)
    return environment


def test_threads_sleep_while_they_wait(monkeypatch):
    assert chosen(monkeypatch) == {"OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize(
    "said", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "9"}, {"KMP_BLOCKTIME": "0"}], ids=str
)
def test_the_users_waiting_policy_is_kept(monkeypatch, said):
    assert chosen(monkeypatch, **said) == said


@pytest.mark.parametrize(
    ("quotas", "environment", "threads"),
    [
        ([], {}, None),  # torch's own choice knows the affinity
        ([64.0], {}, None),
        ([8.0], {}, None),
        ([2.0], {}, "2"),
        ([6.0, 2.5], {}, "3"),
        ([0.1], {}, "1"),
        ([2.0], {"OMP_NUM_THREADS": "7"}, "7"),
        ([], {"OMP_NUM_THREADS": "1"}, "1"),
        ([], {"LOCAL_WORLD_SIZE": "4"}, "2"),
        ([2.0], {"LOCAL_WORLD_SIZE": "4"}, "1"),
        ([], {"LOCAL_WORLD_SIZE": "4", "OMP_NUM_THREADS": "1"}, "1"),  # the value that torchrun sets
        ([], {"LOCAL_WORLD_SIZE": ""}, None),
    ],
)
def test_no_more_threads_than_may_run(monkeypatch, quotas, environment, threads):
    assert chosen(monkeypatch, quotas=quotas, **environment).get("OMP_NUM_THREADS") == threads


def test_threads_are_not_set_after_torch_was_imported():
    environment = {}
    _program.choose_threads(environment)
    assert environment == {}


@pytest.mark.parametrize(
    ("memberships", "files", "allowed"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "max 100000"}, 16),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b\n", {"cpu.max": "500000 100000", "a/b/cpu.max": "400000 100000"}, 4),
        ("0::/outside\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/../beside\n", {"cpu.max": "200000 100000"}, 2),
        ("4:memory:/m\n1:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "10000"}, 5),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("1:cpu:/d/e\n", {"cpu/d/cpu.cfs_quota_us": "70000", "cpu/d/cpu.cfs_period_us": "10000"}, 7),
        ("1:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "10000", "cpu/cpu.cfs_period_us": "10000"}, 16),
        ("0::/\n", {"cpu.max": "nonsense"}, 16),
        ("", {}, 16),
        (None, {}, 16),
    ],
)
def test_control_groups_limit_the_processors(monkeypatch, tmp_path, memberships, files, allowed):
    if memberships is not None:
        (tmp_path / "cgroup").write_text(memberships)
    for name, text in files.items():
        file = tmp_path / "mount" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    monkeypatch.setattr(_processors, "_MEMBERSHIPS", tmp_path / "cgroup")
    monkeypatch.setattr(_processors, "_MOUNT", tmp_path / "mount")
    monkeypatch.setattr(_processors, "usable_processors", lambda: 16)
    assert _processors.allowed_processors() == allowed


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
@pytest.mark.parametrize("module", [False, True])
def test_openmp_gets_what_was_chosen(script, module):
    """OpenMP reports it when torch loads; ``ccfast info`` reports it and counts the processors of the affinity."""
    program = [sys.executable, "-m", "ccfast"] if module else script
    one = str(min(os.sched_getaffinity(0)))
    done = started(["taskset", "-c", one, *program, "info"], OMP_DISPLAY_ENV="TRUE")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "threads: 1, OMP_WAIT_POLICY=PASSIVE\n" in done.stdout
    assert " 1 for this process" in done.stdout
    spinning = started([*program, "info"], OMP_DISPLAY_ENV="TRUE", OMP_WAIT_POLICY="ACTIVE")
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in spinning.stderr
