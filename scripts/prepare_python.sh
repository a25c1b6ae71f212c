# shellcheck shell=bash
# Sourced by the other scripts: sets PYTHON to an interpreter that has requirements.txt, making .venv if needed.
# Run from the repository root. Uses the current python3 when it already has the exact packages.

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10 python; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.10 or newer found. Install one, or set PYTHON=/path/to/python3." >&2
    return 1
}

# Succeeds when every pin of requirements.txt is installed in that very version (faiss-gpu counts as faiss-cpu).
has_packages() {
    "$1" - <<'EOF' 2>/dev/null
import importlib.metadata, sys

def installed(name):
    try:
        return importlib.metadata.version(name).split("+")[0]  # 2.13.0+cpu is 2.13.0
    except importlib.metadata.PackageNotFoundError:
        return None

for line in open("requirements.txt"):
    name, _, version = line.split("#")[0].strip().partition("==")
    if name and version not in (installed(name), name == "faiss-cpu" and installed("faiss-gpu")):
        sys.exit(1)
EOF
}

PYTHON=$(find_python)
if ! has_packages "$PYTHON"; then
    if ! has_packages .venv/bin/python; then
        if [ -e .venv ]; then
            echo "setup: .venv is incomplete or older than requirements.txt; completing it"
        else
            echo "setup: making .venv with the packages of requirements.txt (once; about 1.5 GB, some minutes)"
        fi
        if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
            rm -rf .venv
            "$PYTHON" -m venv .venv || {
                echo "error: $PYTHON cannot make virtual environments (on Debian/Ubuntu: apt install python3-venv)." >&2
                exit 1
            }
        fi
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt || {
            echo "error: installing requirements.txt failed; the lines above say why. Run the same command again to go on." >&2
            exit 1
        }
    fi
    PYTHON=$PWD/.venv/bin/python
fi
