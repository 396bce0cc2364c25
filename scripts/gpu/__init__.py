"""The parts of scripts/gpu.sh, one module each: what to measure in the first minutes on a GPU."""
