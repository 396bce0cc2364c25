#!/usr/bin/env bash
# Tables 1 to 4 of LGAP and the rows beyond its protocol, two lanes side by side; resumable, finished cells answer from
# their records. The miniature by default (about a quarter of an hour on 2 cores); DATASET= (empty) for paper scale.
set -euo pipefail
outputs=${1:-outputs}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
scale=${DATASET-digits}
run="$lgap run -m outputs=$outputs threads=${THREADS:-1}${scale:+ dataset=$scale}${N:+ n=$N}"
{
  $run '+experiment/lgap/table3=glob(*)'
  $run '+experiment/lgap/table1=glob(*)'
  $run '+experiment/lgap/beyond=caption,random'
} &
{
  $run '+experiment/lgap/table4=glob(*)'
  $run '+experiment/lgap/table2=glob(*)'
  $run '+experiment/lgap/beyond=full,full_joint,bpda_joint'
}
wait
for table in 1 2 3 4; do "$lgap" report table=lgap/$table outputs="$outputs"${scale:+ dataset=$scale}; done
