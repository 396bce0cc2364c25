#!/usr/bin/env bash
# Every figure of docs/miniature.md: 200 test images, three evaluation seeds (weights fixed), the frozen budget.
# About two CPU-hours, two sweeps side by side; resumable, finished cells answer from their records.
set -euo pipefail
outputs=${1:-outputs/miniature}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
run="$lgap run -m outputs=$outputs n=200 seed=0,1,2 threads=1"
controls() {
  $run purifier=none attack=pgd
  $run purifier=downsample,vae_only attack=pgd,bpda,full
  $run purifier=lgap attack=pgd,bpda captioner=digits/blip,empty,oracle,wrong
  $run purifier=lgap attack=full captioner=oracle,wrong
}
caption_attacks() {
  $run purifier=lgap attack=none,caption,joint,full,full_joint
  $run purifier=lgap attack=full captioner=empty
}
controls &
caption_attacks
wait
"$lgap" report --outputs "$outputs" --csv "$outputs/table.csv"
