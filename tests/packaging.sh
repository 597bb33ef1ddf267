#!/usr/bin/env bash
# tests/packaging.sh: makes an sdist and, from it alone, a wheel; installs the wheel, and the unpacked sdist by
# `pip install .`, each in an empty environment, and runs tests/smoke.py there. CPU only. The environments have the same
# path one after the other, and so `pip install .` finds the objects of the wheel: everything is compiled once.
#
# torch and what else ccfast needs come from the environment of $PYTHON (python3): the empty ones see its packages behind
# their own, so that nothing large is installed again.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$(command -v "${PYTHON:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH CCFAST_EMULATE
export CCFAST_CUDA=0
cd "$work"

say() { printf '\n--- %s\n' "$*"; }

empty_environment() { # $work/empty, anew; the packages of $python come last there and cannot be changed
  "$python" -m venv --clear "$work/empty"
  "$python" -c 'import pathlib, importlib.util as u; print(pathlib.Path(u.find_spec("torch").origin).parent.parent)' > \
    "$("$work/empty/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_others.pth"
}

smoke() { # what is installed in the empty environment works, and is not that of another one
  "$work/empty/bin/python" "$root/tests/smoke.py" | tee "$work/smoke.txt"
  grep -qF "smoke test passed: $work/empty/" "$work/smoke.txt"
}

say "sdist, without torch"
"$python" -m venv "$work/build"
"$work/build/bin/pip" install --quiet build
"$work/build/bin/python" -m build --sdist --outdir "$work/dist" "$root"
tar -xf dist/ccfast-*.tar.gz
cd ccfast-*/
for needed in VERSION csrc/bindings.cpp csrc/common/cuda.cuh tests/emulation/cuda_emulation.h tests/smoke.py; do
  test -f "$needed" || { echo "the sdist lacks $needed" >&2; exit 1; }
done
if find . -name '*.so' -o -name '_build_config.py' | grep .; then
  echo "the sdist holds what was built in the tree" >&2
  exit 1
fi

say "a front end that hides torch is told what to run"
if "$work/build/bin/python" -m build --wheel --outdir "$work/dist" . > "$work/hidden.txt" 2>&1; then
  echo "python -m build made a wheel without the environment's torch" >&2
  exit 1
fi
grep -F -- "pip install --no-build-isolation ." "$work/hidden.txt"

say "wheel"
empty_environment
"$work/empty/bin/pip" wheel --quiet --no-deps --wheel-dir "$work/dist" .
"$python" -m zipfile --list "$work"/dist/ccfast-*.whl > "$work/contents.txt"
for needed in ccfast/_build_config.py 'ccfast/_C\.[^ ]*so' ccfast/py.typed 'ccfast/report/[^ ]*html'; do
  grep -E "^$needed " "$work/contents.txt" || { echo "the wheel lacks $needed" >&2; exit 1; }
done
"$work/empty/bin/pip" install --quiet "$work"/dist/ccfast-*.whl
smoke

say "pip install ."
empty_environment
"$work/empty/bin/pip" install --quiet .
smoke
