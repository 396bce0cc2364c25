#!/usr/bin/env bash
# The figures of docs/miniature.md: 200 test images, three evaluation seeds (one for the caption sources), the frozen budget.
# About an hour of CPU in two sweeps side by side; resumable, finished cells answer from their records.
set -euo pipefail
cd "$(dirname "$0")/.." || exit 1
outputs=${1:-outputs/miniature}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
run="$lgap run -m outputs=$outputs n=200 threads=1"
{
  $run purifier=none attack=pgd seed=0,1,2
  $run purifier=lgap attack=pgd,bpda,joint seed=0,1,2
  $run purifier=downsample,vae_only attack=pgd,bpda,full seed=0,1,2
  $run purifier=lgap attack=caption seed=0,1,2
  $run purifier=lgap attack=pgd,bpda captioner=empty,oracle,wrong seed=0
} &
{
  $run purifier=lgap attack=full,full_joint seed=0,1,2
  $run purifier=lgap attack=full captioner=empty,oracle,wrong seed=0
}
wait
"$lgap" report --outputs "$outputs" --csv "$outputs/table.csv"
