#!/usr/bin/env bash
# tests/repair_wheel.sh WHEEL FOLDER: the wheel with a manylinux tag. torch's libraries and CUDA's stay out of it: they are
# those that torch has loaded when ccfast is imported.
set -euo pipefail
exec auditwheel repair --wheel-dir "$2" --exclude 'libc10*.so*' --exclude 'libtorch*.so*' --exclude 'libgomp*.so*' \
  --exclude 'libcud*.so*' --exclude 'libcublas*.so*' "$1"
