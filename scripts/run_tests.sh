#!/usr/bin/env bash
# All checks, on CPU, from a fresh clone: bash scripts/run_tests.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC2034 # read there
packages=--tests
source scripts/prepare_python.sh

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# A file per worker at a time: launches of two ranks wait for each other often enough that a worker more than cores pays.
# Most of them are forked from one Python that has imported the libraries (tests/fork_server.py).
workers=$("$PYTHON" -c 'import os; n = os.cpu_count(); print(min(4, n + 1) if n > 1 else 0)')
OMP_NUM_THREADS=1 exec "$PYTHON" -m pytest -n "$workers" --dist loadfile --no-loadscope-reorder "$@"
