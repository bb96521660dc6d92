#!/usr/bin/env bash
# Trains in several processes on this machine: one for each GPU, or two where there is none.
#
#     scripts/torchrun.sh --run_dir runs/first --epochs 20
#
# The flags are train.py's. A run that a fault has ended goes on from its newest checkpoint, by
# itself up to RESTARTS times, and whenever the same line is given again. PROCESSES sets how many.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ " $* " != *" --run_dir"* ]]; then
    echo "name the run's folder, so that it can go on from there: --run_dir runs/first" >&2
    exit 2
fi
processes=${PROCESSES:-$(python -c 'import torch; print(torch.cuda.device_count() or 2)')}
exec torchrun --standalone --nproc-per-node "$processes" --max-restarts "${RESTARTS:-3}" \
    train.py --resume "$@"
