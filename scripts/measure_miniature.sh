#!/usr/bin/env bash
# Every figure of docs/miniature.md: 200 test images, three evaluation seeds (weights fixed), the frozen budget.
# About 70 CPU-minutes in two sweeps side by side; resumable, finished cells answer from their records.
set -euo pipefail
outputs=${1:-outputs/miniature}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
run="$lgap run -m outputs=$outputs n=200 threads=1"
{
  $run seed=0,1,2 purifier=none attack=pgd
  $run seed=0,1,2 purifier=downsample,vae_only attack=pgd,bpda,full
  $run seed=0,1,2 purifier=lgap attack=pgd,bpda,joint,caption
  $run seed=0,1,2 purifier=lgap attack=pgd,bpda captioner=empty,oracle,wrong
} &
{
  $run seed=0,1,2 purifier=lgap attack=full,full_joint
  $run seed=0,1,2 purifier=lgap attack=full captioner=empty,oracle,wrong
}
wait
"$lgap" report --outputs "$outputs" --csv "$outputs/table.csv"
