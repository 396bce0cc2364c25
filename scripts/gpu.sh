#!/usr/bin/env bash
# The first 25 minutes on a GPU, one command: what can only be measured there. Every part saves as it ends, below $OUT.
#
#   scripts/gpu.sh                 on a GPU, with CIFAR-10 in $LGAP_BENCH_DATA (else the last two parts are left out)
#   QUICK=1 scripts/gpu.sh         all of it on a CPU at toy size, in a few minutes: does it run
#   MINUTES=60 OUT=outputs/h100 PYTHON=python scripts/gpu.sh
#
#   suite.log       the test suite on the GPU
#   networks.json   seconds per call and memory of every network at true size, by precision: forecasts are made from it
#   pipeline.json   LGAP at the release's size against the plain diffusers pipeline
#   tables/         the miniature's tables, on the GPU
#   prior/, cells/  a pixel prior trained for as long as is left, then COUP, DiffPure and COUP unguided under blind, BPDA, full
#   summary.txt     part, seconds, how it ended
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python} OUT=${OUT:-outputs/gpu} MINUTES=${MINUTES:-25} QUICK=${QUICK:-}
export PYTHONPATH="$PWD:$PWD/lgap_bench/plugins${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$OUT"
: > "$OUT/summary.txt"
end=$((SECONDS + MINUTES * 60))

left() { local seconds=$((end - SECONDS)); echo $((seconds > 0 ? seconds : 0)); }

# part NAME MOST COMMAND...: runs it for at most MOST seconds, and never beyond the end; its output in $OUT/NAME.log.
part() {
  local name=$1 most=$2 began=$SECONDS status=0; shift 2
  [ "$(left)" -lt "$most" ] && most=$(left)
  if [ "$most" -lt 1 ]; then echo "$name 0 s: no time left" | tee -a "$OUT/summary.txt"; return; fi
  echo "$name ... at most $most s" >&2
  timeout --signal=TERM --kill-after=20 "$most" "$@" > "$OUT/$name.log" 2>&1 || status=$?
  case $status in 0) how=done ;; 124) how="out of time, what it had is kept" ;; *) how="failed ($status): $(tail -n 1 "$OUT/$name.log")" ;; esac
  echo "$name $((SECONDS - began)) s: $how" | tee -a "$OUT/summary.txt"
}


if [ -n "$QUICK" ]; then
  quick=(--quick) data=digits train=5 small=(n=2 score_draws=1 threads=1 attack.select_draws=1 attack.confirm_draws=0) prior=(--width 16 --batch 8)
  suite=(tests/test_threat.py) epochs=1 classifier=digits/standard
  steps=(attack.steps=1) tables=(run -m experiment=demo/undefended,demo/control_full n=2 score_draws=1 threads=1)
else
  quick=() data=cifar10 train=$(($(left) - 900)) small=(n=64 score_draws=5 chunk=64) prior=()
  suite=(tests -m "not slow and not slurm") epochs=8 classifier=cifar10/scratch
  steps=(attack.steps=10) tables=(tables lgap dataset=digits n=16)
fi

part suite 240 "$PYTHON" -m pytest -q -x -p no:cacheprovider "${suite[@]}"
part networks 240 "$PYTHON" -m scripts.gpu.networks "$OUT/networks.json" "${quick[@]}"
part pipeline 180 "$PYTHON" -m scripts.gpu.pipeline "$OUT/pipeline.json" "${quick[@]}"
part tables 240 "$PYTHON" -m lgap_bench.cli "${tables[@]}" outputs="$OUT/tables"

# Half of what is left trains, the other half attacks.
[ -n "$QUICK" ] || train=$(($(left) / 2))
part prior $((train + 60)) "$PYTHON" -m scripts.gpu.prior "$OUT/prior" --dataset "$data" --seconds "$train" "${prior[@]}"
if [ -d "$OUT/prior/scheduler" ]; then
  words=(dataset="$data" classifier="$classifier" "prior.weights=$PWD/$OUT/prior" "outputs=$OUT/cells" "${small[@]}")
  case $OUT in /*) words[2]="prior.weights=$OUT/prior" ;; esac
  [ -n "$QUICK" ] || words+=(train=cifar10/adp "train.epochs=$epochs" max_rows=auto)
  for attack in pgd bpda full; do  # the cheapest view of all purifiers first: what is cut off is the dearest
    for purifier in diffpure coup_unguided coup; do
      part "cell-$purifier-$attack" 600 "$PYTHON" -m lgap_bench.cli run purifier="$purifier" attack="$attack" "${steps[@]}" "${words[@]}"
    done
  done
  "$PYTHON" -m lgap_bench.cli report --outputs "$OUT/cells" > "$OUT/cells.txt" 2>&1 || true
fi
cat "$OUT/summary.txt"
! grep -q ": failed" "$OUT/summary.txt"
