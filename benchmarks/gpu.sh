#!/usr/bin/env bash
# benchmarks/gpu.sh OUT [STEP...]: all that needs a GPU, on a machine with one, torch and nvcc, and no network.
#
# Steps, in this order unless named (each stays below ten minutes):
#   build       the extension with its CUDA kernels, and what was built
#   check       ccfast check: every op beside its reference and beside eager PyTorch, on every GPU
#   cuda        tests/test_cuda.py: streams, graphs, no waiting on the training path, the CPU's results
#   ops         the tests of all ops, on CUDA tensors
#   sanitizer   compute-sanitizer over one call of every op: memcheck of all kernels, racecheck of ccfast's. racecheck sees
#               shared memory alone: races in global memory are looked for by tests/emulation
#   benchmarks  all sizes, the tables and the pictures
#
# OUT gets a log for each step, the result files, tables and pictures, and summary.txt. A step that fails does not keep
# the next from running; the exit status is then 1. CCFAST_COMMIT names the commit where there is no repository.
# shellcheck disable=SC2329  # the steps are called by their names
set -uo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

have_gpu() {
  "$python" -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "no CUDA device")'
}

have_kernels() { # or every test would be skipped, which looks like a success
  "$python" -c 'import ccfast, sys; sys.exit(None if ccfast.build_info()["cuda"] else "ccfast was built without CUDA")'
}

build() {
  CCFAST_CUDA=1 MAX_JOBS=${MAX_JOBS:-$(nproc)} "$python" -m pip install --no-build-isolation --no-deps -e . &&
    "$python" -m ccfast info && have_kernels
}

check() {
  have_kernels && timeout 580 "$python" -m ccfast check --device cuda --json "$out/check.json"
}

cuda() {
  have_kernels && timeout 540 "$python" -m pytest -m cuda -rs tests/test_cuda.py
}

ops() {
  have_kernels && grep -lw backend tests/test_*.py | xargs timeout 580 "$python" -m pytest -m cuda -rs --durations 10
}

sanitizer() {
  have_kernels || return 1
  local tool status=0
  for tool in memcheck racecheck; do
    echo "=== $tool"
    local kernels=()
    [ "$tool" = memcheck ] || kernels=(--kernel-regex kns=ccfast) # not cuBLAS's
    # Without torch's cache every tensor is a separate allocation, so that each access past its end is found.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout 280 compute-sanitizer --tool "$tool" "${kernels[@]}" --error-exitcode 9 \
      "$python" -m pytest -m cuda tests/test_cuda.py -k results_on_cuda_are_those_of_the_cpu || status=1
  done
  return "$status"
}

# One process per op, so that a fault of the device in one does not end the others.
benchmarks() {
  have_kernels || return 1
  local op status=0 begin=$SECONDS most=520 left
  for op in contrastive memory pseudo_labels knn jaccard dbscan retrieval; do
    left=$((most - (SECONDS - begin)))
    echo "=== $op, $left s left"
    [ "$left" -gt 0 ] || { echo "not begun: no time left"; status=1; continue; }
    timeout $((left + 30)) "$python" -m benchmarks --device cuda --sizes full --op "$op" --seconds "$left" || status=1
  done
  "$python" -m benchmarks.table || status=1
  "$python" -m benchmarks.plot || status=1
  cp benchmarks/results/*nvidia* docs/images/*-cuda.png README.md docs/benchmarks.md "$out" || status=1
  return "$status"
}

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(build check cuda ops sanitizer benchmarks)
for step in "${steps[@]}"; do
  case $step in
    build | check | cuda | ops | sanitizer | benchmarks) ;;
    *) echo "unknown step: $step" >&2 && exit 2 ;;
  esac
done
have_gpu || exit 1

failed=0
for step in "${steps[@]}"; do
  begin=$SECONDS
  "$step" 2>&1 | tee "$out/$step.log"
  if [ "${PIPESTATUS[0]}" -eq 0 ]; then result=ok; else result=FAILED failed=1; fi
  printf '%-12s %-8s %5d s\n' "$step" "$result" $((SECONDS - begin)) | tee -a "$out/summary.txt"
done
exit "$failed"
