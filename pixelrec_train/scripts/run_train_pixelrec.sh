#!/usr/bin/env bash
# For who stands in pixelrec_train/: the script of this name in the repository. Paths are those of where you stand.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../scripts/$(basename "${BASH_SOURCE[0]}")" "$@"
