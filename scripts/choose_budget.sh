#!/usr/bin/env bash
# The miniature's headline budget, chosen once on validation images: the smallest eps at which BPDA reports at least
# 20 points more than the exact gradient. About 25 CPU-minutes; resumable, finished cells answer from their records.
set -euo pipefail
cd "$(dirname "$0")/.." || exit 1
outputs=${1:-outputs/choose_budget}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
run="$lgap run -m outputs=$outputs dataset.split=validation n=100 threads=1 threat.eps=16/255,24/255,32/255,48/255,64/255"
{ $run purifier=none,downsample,vae_only attack=pgd; $run purifier=lgap attack=pgd,bpda; } &
$run purifier=lgap attack=full
wait
"$lgap" report --outputs "$outputs" --csv "$outputs/table.csv"
