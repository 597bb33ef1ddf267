#!/usr/bin/env bash
# tests/any_torch.sh [PYTHON/TORCH[/INDEX]...]: builds ccfast for the CPU with each Python and torch, in an environment of
# its own, and runs tests/smoke.py there. Prints one line per pair; the table in docs/installing.md is made of them.
#
# PYTHON is a version (pyenv and PATH are searched) or the path of an interpreter; TORCH a version such as 2.13.0 or
# 2.13.0+cpu; INDEX an extra package index, as in 3.11/2.13.0+cpu/https://download.pytorch.org/whl/cpu. Installs
# some GB per pair and takes minutes; not part of .ci/run.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -gt 0 ] || set -- 3.10/2.6.0 3.11/2.9.1 3.11/2.11.0 3.11/2.13.0+cpu/https://download.pytorch.org/whl/cpu \
  3.11/2.14.1 3.12/2.15.0 3.13/2.14.1
unset PYTHONPATH CCFAST_EMULATE
export CCFAST_CUDA=0
status=0

interpreter() { # interpreter VERSION: the path of that Python
  local found
  found=$(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1.*/bin/python" | sort -V | tail -1)
  [ -n "$found" ] || found=$(command -v "python$1" || command -v "$1")
  [ -n "$found" ] && echo "$found"
}

try() { # try PYTHON TORCH INDEX: builds, installs and runs in $work
  local python
  python=$(interpreter "$1") || { echo "no Python $1 here"; return 1; }
  "$python" -m venv "$work/venv" &&
    "$work/venv/bin/pip" install "torch==$2" ${3:+--extra-index-url "$3"} &&
    "$work/venv/bin/pip" install --upgrade 'setuptools>=77,<82' wheel ninja numpy scipy scikit-learn tqdm pyyaml pillow jinja2 &&
    mkdir "$work/tree" && tar -C "$root" --exclude=./build --exclude=./.git --exclude='*.so' -cf - . | tar -C "$work/tree" -xf - &&
    (cd "$work/tree" && TIMEFORMAT='build: %U s of CPU' && time "$work/venv/bin/pip" install --no-build-isolation --no-deps -v .) &&
    (cd "$work" && "$work/venv/bin/python" "$root/tests/smoke.py")
}

for pair in "$@"; do
  IFS=/ read -r python torch index <<<"$pair"
  work=$(mktemp -d)
  if try "$python" "$torch" "$index" > "$work/log" 2>&1; then
    info=$(grep -E '^(compiler|build):' "$work/log" | sed 's/^build: //; s/^compiler: //' | paste -sd, | sed 's/,/, /g')
    echo "Python $python, torch $torch: ok ($info)"
  else
    status=1
    echo "Python $python, torch $torch: FAILED"
    tail -n 20 "$work/log" | sed 's/^/    /'
  fi
  rm -rf "$work"
done
exit "$status"
