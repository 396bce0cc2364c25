#!/usr/bin/env bash
# The tables of docs/captions.md: 64 test images, seed 0, the frozen budget, two captioners, one thread.
# Resumable: finished cells answer from their records.
set -euo pipefail
cd "$(dirname "$0")/.." || exit 1
outputs=${1:-outputs/captions}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
$lgap run -m outputs="$outputs" n=64 seed=0 threads=1 captioner=digits/blip,digits/consensus \
  attack=pgd,bpda,caption,caption_nearest,caption_unrelated,joint,joint_nearest
$lgap report --captions --markdown --outputs "$outputs" --csv "$outputs/captions.csv"
