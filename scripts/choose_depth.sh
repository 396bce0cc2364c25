#!/usr/bin/env bash
# How deep and in what steps the miniature's pixel purifiers go: natural and blind accuracy on validation images. Chosen: t_star
# 0.2 in steps of 0.05, without noise in the last step (docs/coup.md).
set -euo pipefail
cd "$(dirname "$0")/.." || exit 1
lgap=${LGAP_BENCH:-.venv/bin/lgap-bench}
outputs=${1:-outputs/depth}
run="$lgap run -m outputs=$outputs dataset.split=validation purifier=diffpure,coup_unguided attack=pgd score_draws=4 threads=1"
$run purifier.t_star=0.1,0.2,0.3,0.4 purifier.sampler.dt=0.05,0.1 threat.eps=32/255
$run purifier.t_star=0.2,0.3 purifier.sampler.dt=0.05,0.1 threat.eps=48/255
# One value as a choice: with a swept purifier Hydra tries plain overrides on the default one first, which has no such keys.
$run 'purifier.t_star=choice(0.2)' purifier.sampler.dt=0.02,0.05 'purifier.sampler.last_noise=choice(true)' threat.eps=32/255,48/255
# What decided: a short attack on the exact gradient.
white="$lgap run -m outputs=$outputs dataset.split=validation purifier=diffpure,coup_unguided attack=full n=32 score_draws=5 threads=1"
white="$white attack.steps=10 attack.draws=2 attack.step_size=eps/4 attack.select_draws=4 attack.confirm_draws=8"
$white purifier.t_star=0.2,0.3,0.4 'purifier.sampler.dt=choice(0.1)' threat.eps=24/255,48/255
$white purifier.t_star=0.2,0.3 'purifier.sampler.dt=choice(0.05)' threat.eps=24/255,48/255
$lgap report --outputs "$outputs" --markdown
