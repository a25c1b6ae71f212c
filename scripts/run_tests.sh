#!/usr/bin/env bash
# All checks, on CPU, from a fresh clone: bash scripts/run_tests.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/prepare_python.sh

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
OMP_NUM_THREADS=1 exec "$PYTHON" -m pytest "$@"
