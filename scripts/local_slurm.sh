#!/usr/bin/env bash
# A SLURM of two nodes on this one machine, to try jobs on without a cluster.  As root, on Debian or Ubuntu:
#
#   scripts/local_slurm.sh install            # slurm-wlm and munge, where they are missing; 3 where it cannot
#   scripts/local_slurm.sh up /tmp/slurm      # starts the daemons; what they need is installed first
#   export SLURM_CONF=/tmp/slurm/slurm.conf
#   scripts/local_slurm.sh down /tmp/slurm    # ends jobs and daemons, and leaves nothing but the folder
#
# Each node claims four processors, whatever the machine has, and no GPU: submit with launcher.gpus_per_node=0.
set -euo pipefail

ACTION=${1:?install, up or down}
HOST=$(hostname -s)
NAMES="127.0.0.1 n1 n2 # vlmtrain's local_slurm.sh"
CANNOT=3

install_slurm() {
    command -v slurmctld > /dev/null && command -v munged > /dev/null && return
    [ "$(id -u)" = 0 ] || { echo "slurm-wlm and munge are not installed, and only root may install them" >&2; exit $CANNOT; }
    command -v apt-get > /dev/null || { echo "slurm-wlm and munge are not installed, and there is no apt-get" >&2; exit $CANNOT; }
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge; } > /dev/null; then
        echo "apt-get could not install slurm-wlm and munge" >&2
        exit $CANNOT
    fi
}

write_configuration() {
    mkdir -p "$FOLDER"/{state,log,spool/n1,spool/n2}
    cat > "$FOLDER/slurm.conf" <<END
ClusterName=local
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# How long credentials hold is also how long a requeued job waits before it may start again.
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=2,sched_interval=2
ReturnToService=2
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool/%n
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd-%n.pid
SlurmctldLogFile=$FOLDER/log/slurmctld.log
SlurmdLogFile=$FOLDER/log/slurmd-%n.log
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
KillWait=10
NodeName=n[1-2] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    echo "CgroupAutomount=no" > "$FOLDER/cgroup.conf"
}

start() {
    [ "$(id -u)" = 0 ] || { echo "only root may start SLURM's daemons" >&2; exit $CANNOT; }
    if pgrep -x slurmctld > /dev/null; then
        echo "a slurmctld runs here already" >&2
        exit $CANNOT
    fi
    install_slurm
    write_configuration
    grep -q " n1 n2" /etc/hosts || echo "$NAMES" >> /etc/hosts
    if ! pgrep -x munged > /dev/null; then
        install -d -o munge -g munge -m 755 /run/munge
        runuser -u munge -- /usr/sbin/munged
        cp /run/munge/munged.pid "$FOLDER/munged.pid" # ours to end
    fi
    export SLURM_CONF=$FOLDER/slurm.conf
    slurmctld
    slurmd -N n1
    slurmd -N n2
    for _ in $(seq 120); do
        [ "$(sinfo --noheader --states=idle --format=%D 2> /dev/null)" = 2 ] && break
        sleep 0.5
    done
    sinfo
    [ "$(sinfo --noheader --states=idle --format=%D)" = 2 ] || { echo "the nodes are not idle; see $FOLDER/log" >&2; exit 1; }
}

stop() {
    export SLURM_CONF=$FOLDER/slurm.conf
    timeout 10 scancel --state=PENDING 2> /dev/null || true
    timeout 10 scancel --signal=KILL --full --state=RUNNING 2> /dev/null || true
    for _ in $(seq 20); do
        [ -z "$(timeout 5 squeue --noheader 2> /dev/null)" ] && break
        sleep 0.5
    done
    for daemon in slurmd-n1 slurmd-n2 slurmctld munged; do
        if [ -f "$FOLDER/$daemon.pid" ]; then end "$(cat "$FOLDER/$daemon.pid")"; fi
        rm -f "$FOLDER/$daemon.pid"
    done
    if grep -qxF "$NAMES" /etc/hosts; then
        others=$(grep -vxF "$NAMES" /etc/hosts || true)
        echo "$others" > /etc/hosts # in place: in a container it is a mount
    fi
}

end() { # ends a process, by force where asking is not enough
    kill "$1" 2> /dev/null || return 0
    for _ in $(seq 20); do
        kill -0 "$1" 2> /dev/null || return 0
        sleep 0.25
    done
    kill -KILL "$1" 2> /dev/null || true
}

case $ACTION in
    install) install_slurm ;;
    up) FOLDER=$(realpath -m "${2:?a folder for its state}") && start ;;
    down) FOLDER=$(realpath -m "${2:?the folder of its state}") && stop ;;
    *) echo "local_slurm.sh: $ACTION is none of install, up and down" >&2; exit 2 ;;
esac
