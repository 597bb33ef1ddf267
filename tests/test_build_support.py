"""What the build decides: jobs, torch, CUDA, and which sources are compiled together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from build_support import backend, cuda, jobs, sources, torch_at_hand  # noqa: E402


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4),
        ({"memory.max": "max", "memory.current": 1 << 30}, 4),
        ({"memory.max": 7 << 30, "memory.current": 1 << 30}, 3),
        ({"memory.max": 4 << 30, "memory.current": 3 << 30}, 1),
        ({"memory.max": 6 << 30, "memory.current": 6 << 30, "memory.stat": f"anon 5\ninactive_file {4 << 30}"}, 2),
        ({"memory/memory.limit_in_bytes": 4 << 30, "memory/memory.usage_in_bytes": 0}, 2),
        ({"cpu.max": "50000 100000"}, 1),
    ],
)
def test_jobs_have_a_core_and_two_gigabytes_each(monkeypatch, tmp_path, files, expected):
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    for name, text in {"memberships": "3:memory:/outside\n0::/\n", "meminfo": f"MemAvailable: {9 << 20} kB\n"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(jobs.processors, "_MEMBERSHIPS", tmp_path / "memberships")
    monkeypatch.setattr(jobs.processors, "_MOUNT", tmp_path)
    monkeypatch.setattr(jobs.processors, "usable_processors", lambda: 8)
    monkeypatch.setattr(jobs, "MEMINFO", tmp_path / "meminfo")
    assert jobs.compile_jobs() == expected


def fake_torch(cuda_version="13.0", gpus=()):
    return SimpleNamespace(
        version=SimpleNamespace(cuda=cuda_version),
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_device_capability=lambda index=0: gpus[index],
        ),
    )


@pytest.fixture
def toolkit(monkeypatch, tmp_path):
    for variable in ("CCFAST_CUDA", "TORCH_CUDA_ARCH_LIST", "CUDA_HOME"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(cuda, "find_toolkit", lambda: tmp_path)
    monkeypatch.setattr(cuda, "toolkit_version", lambda root: "13.0")
    return tmp_path


def test_auto_leaves_cuda_out_where_nothing_could_run_it_and_says_how_to_force_it(toolkit):
    plan = cuda.plan_cuda(fake_torch())
    assert plan.toolkit is None
    assert "no GPU is visible" in plan.reason and "CCFAST_CUDA=1 pip install --no-build-isolation -e ." in plan.reason


@pytest.mark.parametrize(
    ("switch", "listed", "gpus", "architectures"),
    [
        ("auto", "", [(9, 0), (8, 0), (9, 0)], "8.0;9.0"),
        ("", "8.6", [], "8.6"),
        ("auto", "8.6", [(9, 0)], "8.6"),
        ("1", "", [], cuda.DEFAULT_ARCHITECTURES),
    ],
)
def test_cuda_is_built_for_the_gpus_or_the_list(toolkit, monkeypatch, switch, listed, gpus, architectures):
    monkeypatch.setenv("CCFAST_CUDA", switch)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    plan = cuda.plan_cuda(fake_torch(gpus=gpus))
    assert (plan.toolkit, plan.architectures) == (toolkit, architectures)


@pytest.mark.parametrize("version", [None, "12.8"])
def test_forced_cuda_fails_loudly_where_torch_has_none_or_another(toolkit, monkeypatch, version):
    monkeypatch.setenv("CCFAST_CUDA", "1")
    with pytest.raises(SystemExit, match="CCFAST_CUDA=1, but the CUDA kernels cannot be built: off: "):
        cuda.plan_cuda(fake_torch(version, gpus=[(9, 0)]))
    monkeypatch.setenv("CCFAST_CUDA", "0")
    assert cuda.plan_cuda(fake_torch(version, gpus=[(9, 0)])).reason == "off by CCFAST_CUDA=0"


def test_unknown_switch_is_refused(monkeypatch):
    monkeypatch.setenv("CCFAST_CUDA", "yes")
    with pytest.raises(SystemExit, match="CCFAST_CUDA: expected auto, 0 or 1, got 'yes'"):
        cuda.plan_cuda(torch)


@pytest.mark.parametrize(
    ("version", "needs"),
    [
        ("2.11.0", ["torch===2.11.0", "torchvision"]),
        ("2.13.0+cpu", ["torch==2.13.0+cpu", "torchvision"]),
        ("2.16.0.dev20261101+cu130", ["torch==2.16.0.dev20261101+cu130"]),
    ],
)
def test_the_very_build_of_torch_is_asked_for(monkeypatch, version, needs):
    from packaging.requirements import Requirement

    monkeypatch.setattr(torch_at_hand, "installed_version", lambda: version)
    assert torch_at_hand.requirements() == needs
    pin = Requirement(needs[0]).specifier
    assert pin.contains(version, prereleases=True)
    others = {"2.11.0", "2.11.0+cpu", "2.13.0", "2.13.0+cpu", "2.13.0+cu130"} - {version}
    assert not any(pin.contains(other, prereleases=True) for other in others)


def test_versions_of_torch_are_those_of_this_environment():
    assert torch_at_hand.full_version() == torch.__version__
    assert torch.__version__.startswith(torch_at_hand.installed_version())


def test_only_pips_isolated_build_installs_torch(monkeypatch):
    monkeypatch.setattr(torch_at_hand, "folder", lambda: None)
    monkeypatch.setattr(sys, "path", ["/tmp/pip-build-env-x1/overlay/lib/python3.11/site-packages", *sys.path])
    assert backend._torch_for_build() == ["torch>=2.6"]
    assert torch_at_hand.requirements() == ["torch>=2.6", "torchvision"]
    monkeypatch.setattr(sys, "path", sys.path[1:])
    with pytest.raises(SystemExit, match=r"pip install --no-build-isolation \."):
        backend._torch_for_build()
    monkeypatch.setattr(torch_at_hand, "folder", lambda: Path("/somewhere"))
    assert backend._torch_for_build() == []


def test_every_source_is_compiled_once_and_glue_together(tmp_path):
    cpu = sources.cpu_sources()
    units = sources.units(tmp_path, cpu)
    glue = (ROOT / units[0]).read_text()
    alone = units[1:]
    assert all((f'#include "{ROOT / name}"' in glue) != (name in alone) for name in cpu)
    assert all("_op" not in name and "bindings" not in name for name in alone)
    before = (ROOT / units[0]).stat().st_mtime_ns
    assert sources.units(tmp_path, cpu) == units and (ROOT / units[0]).stat().st_mtime_ns == before

    both = sources.units(tmp_path, cpu + sources.cuda_sources())
    assert [Path(name).name for name in both[:2]] == ["glue.cpp", "glue_cuda.cpp"]
    assert {name for name in both if name.endswith(".cu")} == {
        str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cu")
    }


SMALL_MODULE = """
#include <Python.h>
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "small", nullptr, -1, nullptr};
#define JOIN(prefix, name) prefix##name
#define INIT(name) JOIN(PyInit_, name)
extern "C" PyObject* INIT(TORCH_EXTENSION_NAME)() { return PyModule_Create(&definition); }
"""


@pytest.mark.slow
@pytest.mark.parametrize("emulate", ["0", "1"])
@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="has no stable ABI")
def test_a_build_in_place_leaves_no_library_of_an_earlier_one(tmp_path, emulate):
    for name in ("setup.py", "VERSION", "build_support", "ccfast/_processors.py", "ccfast/_commit.py"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "ccfast" / "__init__.py").touch()
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "small.cpp").write_text(SMALL_MODULE)
    package, other = tmp_path / "ccfast", tmp_path / "lib" / "ccfast"
    other.mkdir(parents=True)
    version_suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for folder in (package, other):
        for old in (f"_C{version_suffix}", f"_C_emulated{version_suffix}", "_C_emulated.abi3.so", "_Cousin.py"):
            (folder / old).write_text("old")

    environment = {**os.environ, "CCFAST_EMULATE": emulate, "CCFAST_CUDA": "0"}
    command = [sys.executable, "setup.py", "build_ext", "--inplace", "--build-lib", "lib"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

    expected = {"_C.abi3.so", "_Cousin.py", *(["_C_emulated.abi3.so"] if emulate == "1" else [])}
    for folder in (package, other):
        assert {path.name for path in folder.glob("_C*")} == expected
        assert all((folder / name).stat().st_size > 1000 for name in expected if name.endswith(".so"))
    assert (package / "_build_config.py").exists()


def test_every_op_of_a_cpu_build_refuses_cuda_tensors_and_names_the_command():
    import ccfast

    if ccfast.build_info()["cuda"]:
        pytest.skip("built with CUDA kernels")
    key = torch._C.DispatchKey.CUDA
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("ccfast::")]
    assert len(names) > 10
    for name in names:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA"), name
    command = r"CCFAST_CUDA=1 pip install --no-build-isolation -e \."
    with pytest.raises(NotImplementedError, match=rf"ccfast::knn: got a CUDA tensor.*{command}"):
        torch.ops.ccfast.knn.default.redispatch(torch._C.DispatchKeySet(key), torch.ones(3, 2), None, 1, "fp32")
    with pytest.raises(NotImplementedError, match=rf"ccfast::jaccard_distance: got a CUDA tensor.*{command}"):
        torch.ops.ccfast.jaccard_distance.default.redispatch(torch._C.DispatchKeySet(key), torch.ones(3, 2), 1, 1)
