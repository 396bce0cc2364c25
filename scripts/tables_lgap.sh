#!/usr/bin/env bash
# Tables 1 to 4 of LGAP and the rows beyond its protocol, two lanes side by side; resumable, finished cells answer from
# their records. The miniature by default (about a quarter of an hour on 2 cores); DATASET= (empty) for paper scale.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
outputs=${1:-outputs}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
scale=${DATASET-digits}
run="$lgap run -m outputs=$outputs threads=${THREADS:-1}${scale:+ dataset=$scale}${N:+ n=$N}"

sweep() { # every sweep is tried; one that failed makes the lane fail
  local status=0
  for experiments in "$@"; do $run "$experiments" || status=1; done
  return $status
}

sweep '+experiment/lgap/table3=glob(*)' '+experiment/lgap/table1=glob(*)' '+experiment/lgap/beyond=caption,random' &
lane=$!
status=0
sweep '+experiment/lgap/table4=glob(*)' '+experiment/lgap/table2=glob(*)' '+experiment/lgap/beyond=full,full_joint,bpda_joint' || status=1
wait $lane || status=1
for table in 1 2 3 4 figure2; do "$lgap" report table=lgap/$table outputs="$outputs" ${scale:+dataset=$scale} || status=1; done
exit $status
