#!/usr/bin/env bash
# The ablation of language in miniature: caption source x strength x attack, two lanes side by side; resumable.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
outputs=${1:-outputs}
n=${2:-64}
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
run="$lgap run -m dataset=digits outputs=$outputs n=$n threads=1 captioner=digits/blip,empty,fixed,oracle,wrong purifier.strength=0.3,0.5,0.7"
$run experiment=lgap/language/blind,lgap/language/bpda &
lane=$!
status=0
$run experiment=lgap/language/full || status=1
wait $lane || status=1
"$lgap" report table=lgap/language outputs="$outputs" || status=1
exit $status
