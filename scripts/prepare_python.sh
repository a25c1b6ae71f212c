# shellcheck shell=bash
# Sourced by the other scripts. Sets root, the repository; scripts, how its folder of scripts is called from here; and
# PYTHON, an interpreter with the packages of requirements.txt: the current python3 where its versions will do (exact, or
# between floor and ceiling), else .venv, which is made or completed. PIXELREC_PYTHON=keep: the current one in any case.
# packages=--tests, set before: those that only tests need are asked for as well.

root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
# shellcheck disable=SC2034 # for who sources this
if [ "$root" -ef . ]; then scripts=scripts; else scripts=$root/scripts; fi

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

# ask PYTHON MODULE WORD…: what a module of pixelrec_train prints, whichever directory this is.
ask() { PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$1" -m "pixelrec_train.$2" "${@:3}"; }

# has_packages PYTHON: its status says it, and differing what differs from the pins.
has_packages() { differing=$(ask "$1" machine.pins ${packages:+"$packages"} 2>/dev/null); }

make_environment() {
    local made=$root/.venv/bin/python
    if ! "$made" -m pip --version >/dev/null 2>&1; then
        rm -rf "$root/.venv"
        "$PYTHON" -m venv "$root/.venv" || {
            echo "error: $PYTHON cannot make virtual environments (on Debian/Ubuntu: apt install python3-venv)." >&2
            return 1
        }
    fi
    "$made" -m pip install --quiet --disable-pip-version-check -r "$root/requirements.txt" || {
        echo "error: installing requirements.txt failed; the lines above say why. Run the same command again to go on." >&2
        return 1
    }
}

PYTHON=$(find_python) || exit 1
case ${PIXELREC_PYTHON:-} in
keep) ;;
"")
    if has_packages "$PYTHON"; then
        if [ -n "$differing" ]; then echo "setup: $PYTHON is used as it is ($differing)"; fi
    else
        why=$differing
        if ! has_packages "$root/.venv/bin/python"; then
            if [ -e "$root/.venv" ]; then
                echo "setup: .venv is incomplete or older than requirements.txt; completing it"
            else
                echo "setup: $PYTHON has not all packages ($why); PIXELREC_PYTHON=keep would use it all the same"
                echo "setup: making .venv with the packages of requirements.txt (once; about 1.5 GB, some minutes)"
            fi
            make_environment || exit 1
        fi
        PYTHON=$root/.venv/bin/python
    fi
    ;;
*)
    echo "error: PIXELREC_PYTHON is keep (use the current Python) or unset, got '$PIXELREC_PYTHON'." >&2
    exit 2
    ;;
esac
