#!/usr/bin/env bash
# What COUP's guidance is worth under ever better attackers, in miniature: purifier x attack x budget x seed.
#   scripts/coup/finding.sh [outputs] [n] [seeds] [budgets] [strong]
# Two lanes work towards each other and never measure a cell twice; resumable. `strong` adds the worst of four attacks and
# PGD-200 + EOT 20 on the exact gradient on that many images, seed 0 (hours). DATASET= (empty) for paper scale: the paper's 512 images.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
outputs=${1:-outputs}
seeds=${3:-0,1,2}
scale=${DATASET-digits}
n=${2:-$([ "$scale" = digits ] && echo 200 || echo 512)}
budgets=${4:-$([ "$scale" = digits ] && echo 24/255,48/255 || echo 8/255)}
strong=${5:-}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
images=$([ -n "$scale" ] && echo "dataset=$scale" || echo subset=cifar10/coup_512)
run="$lgap run -m outputs=$outputs threads=1 threat.eps=$budgets $images"

measure() { # attack, purifiers
  $run experiment=coup/finding/"$1" purifier="$2" n="$n" seed="$seeds"
}

there=diffpure,coup_unguided,coup,lgap,lgap_coup
back=lgap_coup,lgap,coup,coup_unguided,diffpure
(
  status=0
  measure full_apgd $there || status=1
  measure full_detached coup,lgap_coup || status=1
  measure full_pgd $there || status=1
  exit $status
) &
lane=$!
status=0
measure blind $there || status=1
measure bpda $there || status=1
measure full_pgd $back || status=1
measure full_detached lgap_coup,coup || status=1
measure full_apgd $back || status=1
wait $lane || status=1
for attack in ${strong:+full_ensemble full_strong}; do
  $run experiment=coup/slow/"$attack" purifier=$there n="$strong" || status=1
done
"$lgap" report table=coup/finding outputs="$outputs" ${scale:+dataset=$scale} || status=1
exit $status
