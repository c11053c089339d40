#!/usr/bin/env bash
# What continuous integration does under SLURM, in some minutes on two cores: starts one of two nodes on this machine,
# trains through three time limits (slurm_test.py), kills a trial of a sweep (sweep_test.py), both at once for most of
# either is waiting, and ends all that it started.  As root, on Debian or Ubuntu.
# Ends with 3 where there is no SLURM and none can be installed or started, and says why; with another code where a test fails.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
HOME_FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/vlmtrain-slurm.XXXXXX")
export SLURM_CONF=$HOME_FOLDER/slurm/slurm.conf
export PYTHONPATH=$PWD OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false ACCELERATE_USE_CPU=true
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=offline

SMALL=(trainer.threads=1 trainer.num_workers=0 trainer.precision=fp32 trainer.batch_size=8 "data.folder=$HOME_FOLDER/scenes"
    data.num_train=64 data.num_test=8 data.num_compositional=8 data.num_processes=1)

finish() {
    status=$?
    trap - EXIT
    for test in $(jobs -p); do kill -- "-$test" 2> /dev/null || true; done
    wait
    scripts/local_slurm.sh down "$HOME_FOLDER/slurm" || true
    if [ "$status" != 0 ] && [ "$status" != 3 ]; then
        find "$HOME_FOLDER" \( -name 'slurm-*.log' -o -name 'limits.log' -o -name 'sweep.log' \) -exec tail -n 20 {} + || true
    fi
    rm -rf "$HOME_FOLDER"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM INT HUP
set -m # each test in a process group of its own, so that what it started ends with it

scripts/local_slurm.sh up "$HOME_FOLDER/slurm" || { echo "SLURM does not start here" >&2; exit 3; }
"$PYTHON" scripts/sweep_test.py --slurm --at-once 2 --patience 900 --folder "$HOME_FOLDER/sweep" -- experiment=prefix_lm \
    optimizer.lr=1e-4,1e-3,1e-2 seed=0,1 "${SMALL[@]}" trainer.max_steps=12 trainer.log_every=1 trainer.evaluate_every=4 \
    > "$HOME_FOLDER/sweep.log" &
sweep=$!
"$PYTHON" scripts/slurm_test.py --limits 3 --patience 900 --folder "$HOME_FOLDER/limits" -- +experiment=blip2_opt \
    "${SMALL[@]}" stages.representation.trainer.max_steps=15 stages.language.trainer.max_steps=30 "launcher.local_cache=$HOME_FOLDER/disk" \
    > "$HOME_FOLDER/limits.log" &
limits=$!
wait "$limits"
wait "$sweep"
[ -n "$(find "$HOME_FOLDER"/disk -name '*.tar' -print -quit)" ] || { echo "launcher.local_cache holds no copy of the data" >&2; exit 1; }
