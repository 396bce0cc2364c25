#!/usr/bin/env bash
# COUP's tables 1 to 4, figures 2b, 2c, 4a and 4b, CIFAR-100, salt-and-pepper, and the rows beyond its protocol, two lanes side by
# side; resumable, finished cells answer from their records. The miniature by default (32 images, 45 minutes on 2 cores;
# N=16 for half of it);
# DATASET= (empty) for paper scale. AutoAttack on purifiers takes hours: make tables-slow PAPER=coup. The finding:
# scripts/coup/finding.sh.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
outputs=${1:-outputs}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
scale=${DATASET-digits}
run="$lgap run -m outputs=$outputs threads=${THREADS:-1}${scale:+ dataset=$scale}${N:+ n=$N}"
if [ -n "$scale" ]; then # in miniature a step is 0.05 long; the paper's is 0.001 and its best depth 0.1
  depths=${DEPTHS:-0.05,0.1,0.2,0.3}
else
  depths=${DEPTHS:-0.01,0.05,0.1,0.15,0.2}
fi
weights=${WEIGHTS:-0,0.5,1,2}

sweep() { # every sweep is tried; one that failed makes the lane fail
  local status=0
  for experiments in "$@"; do $run $experiments || status=1; done
  return $status
}

# Lanes of about equal length: COUP's APGD cells are shared by table 1, figure 2b and figure 4.
sweep '+experiment/coup/table1=glob(*)' '+experiment/coup/figure2b=glob(*)' \
  "experiment=coup/figure4/t_star purifier.t_star=$depths" "experiment=coup/figure4/weight purifier.guidance.weight=$weights" \
  '+experiment/coup/figure2c=glob(*)' '+experiment/coup/salt_and_pepper=glob(*)' '+experiment/coup/cifar100=glob(*)' &
lane=$!
status=0
sweep '+experiment/coup/table2=glob(*)' '+experiment/coup/table3=glob(*)' '+experiment/coup/beyond=glob(*)' || status=1
wait $lane || status=1
for table in 1 2 3 cifar100 figure2b figure2c figure4a figure4b salt_and_pepper; do
  "$lgap" report table=coup/$table outputs="$outputs" ${scale:+dataset=$scale} || status=1
done
# Table 4: seconds, not robustness; alone on the machine, so after the lanes.
"$(dirname "$lgap")/python" -m scripts.coup.times dataset="${scale:-cifar10}" outputs="$outputs" || status=1
exit $status
