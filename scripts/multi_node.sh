#!/usr/bin/env bash
# One run on several machines, without a scheduler.  Start this on every machine with the same overrides:
#
#   HEAD=node0 NODES=2 NODE=0 PROCESSES=8 scripts/multi_node.sh +experiment=blip2_opt run_dir=/shared/runs/first
#   HEAD=node0 NODES=2 NODE=1 PROCESSES=8 scripts/multi_node.sh +experiment=blip2_opt run_dir=/shared/runs/first
#
# run_dir has to be one folder that all machines see; how many processes there are, vlmtrain learns from torchrun.
# DRY_RUN=1 prints the command instead of running it.
set -euo pipefail

: "${HEAD:?name or address of the first machine}"
: "${NODES:?number of machines}"
: "${NODE:?number of this machine, from 0}"
: "${PROCESSES:?processes per machine, usually one per GPU}"

if [[ " $* " != *" run_dir="* ]]; then
    echo "multi_node.sh: give run_dir=FOLDER, a folder that all machines see" >&2
    exit 2
fi

command=(
    torchrun --nnodes "$NODES" --node_rank "$NODE" --nproc_per_node "$PROCESSES"
    --master_addr "$HEAD" --master_port "${PORT:-29500}"
    -m vlmtrain.main "$@"
)
if [[ -n "${DRY_RUN:-}" ]]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
exec "${command[@]}"
