# shellcheck shell=bash
# Sourced by settings.sh and launcher.sh: HOSTFILE, the machines of a run, "name slots=8" a line, as DeepSpeed and Open MPI
# read it.

# hosts_of_hostfile: "name slots", a line for each machine.
hosts_of_hostfile() { sed -nE 's/^[[:space:]]*([^#[:space:]]+)[[:space:]]+slots=([0-9]+).*/\1 \2/p' "$HOSTFILE"; }

ranks_of_hostfile() { hosts_of_hostfile | awk '{ n += $2 } END { print n + 0 }'; }

if [ -n "${HOSTFILE:-}" ]; then
    if [ ! -f "$HOSTFILE" ]; then
        echo "error: HOSTFILE $HOSTFILE does not exist (looked from $PWD)." >&2
        exit 2
    fi
    odd=$(grep -vE '^[[:space:]]*(#|$)|^[[:space:]]*[^#[:space:]]+[[:space:]]+slots=0*[1-9][0-9]*([[:space:]]+max_slots=[0-9]+)?[[:space:]]*(#.*)?$' "$HOSTFILE" || true)
    if [ -n "$odd" ]; then
        echo "error: HOSTFILE $HOSTFILE has a line '${odd%%$'\n'*}'; each must be 'name slots=8', with the ranks of that machine." >&2
        exit 2
    fi
    if [ "$(ranks_of_hostfile)" -eq 0 ]; then
        echo "error: HOSTFILE $HOSTFILE names no machine; a line of it is 'name slots=8'." >&2
        exit 2
    fi
    twice=$(hosts_of_hostfile | awk '{ print $1 }' | sort | uniq -d)
    if [ -n "$twice" ]; then
        echo "error: HOSTFILE $HOSTFILE names ${twice%%$'\n'*} twice; a machine has one line." >&2
        exit 2
    fi
fi
