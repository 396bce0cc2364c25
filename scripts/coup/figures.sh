#!/usr/bin/env bash
# COUP's figures that need no table: the toy (3b), the case study (2a), the picture grids (5, 6), the distances of
# proposition 2. In miniature by default; `scripts/coup/figures.sh --quick` to see that it works, further arguments are
# those of the scripts (`--paper`, n=..., outputs=...). Attacked cells answer from their records when run again.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
python=${PYTHON:-.venv/bin/python}
quick=
for given in "$@"; do [ "$given" = --quick ] && quick=--quick; done
status=0
"$python" -m scripts.coup.toy_figure $quick || status=1
for figure in case grids distance; do "$python" -m scripts.coup.$figure "$@" || status=1; done
exit $status
