#!/usr/bin/env bash
# The miniature's headline budget, chosen once on validation images: the smallest eps at which BPDA reports at least
# 20 points more than the exact gradient. About 20 CPU-minutes; resumable, finished cells answer from their records.
set -euo pipefail
outputs=${1:-outputs/choose_budget}
run="${LGAP_BENCH:-.venv/bin/lgap-bench} run -m outputs=$outputs dataset.split=validation n=100 threads=1"
epsilons="threat.eps=16/255,24/255,32/255,48/255,64/255"
$run $epsilons purifier=lgap attack=bpda &
$run $epsilons purifier=none attack=pgd
wait
$run $epsilons purifier=lgap attack=full
"${LGAP_BENCH:-.venv/bin/lgap-bench}" report --outputs "$outputs" --csv "$outputs/table.csv"
