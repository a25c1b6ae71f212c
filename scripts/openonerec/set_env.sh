# shellcheck shell=bash
# source scripts/openonerec/set_env.sh: what OpenOneRec's documents ask for before anything else. Here nothing is needed:
# the recipes find or make their own environment, and set nothing outside their own processes.
echo "set_env.sh: nothing to set; the recipes beside it find their own environment (docs/openonerec.md)"
