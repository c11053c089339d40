#!/usr/bin/env bash
# A SLURM of two nodes on this one machine, to try jobs on without a cluster.  As root, on Debian or Ubuntu:
#
#   scripts/local_slurm.sh up /tmp/slurm      # installs slurm-wlm and munge where they are missing, starts the daemons
#   export SLURM_CONF=/tmp/slurm/slurm.conf
#   scripts/local_slurm.sh down /tmp/slurm
#
# Each node claims four processors, whatever the machine has, and no GPU: submit with launcher.gpus_per_node=0.
set -euo pipefail

ACTION=${1:?up or down}
FOLDER=$(realpath -m "${2:?a folder for its state}")
HOST=$(hostname -s)

install_slurm() {
    command -v slurmctld > /dev/null && command -v munged > /dev/null && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge > /dev/null
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
    install_slurm
    write_configuration
    grep -q " n1 n2" /etc/hosts || echo "127.0.0.1 n1 n2" >> /etc/hosts
    if ! pgrep -x munged > /dev/null; then
        install -d -o munge -g munge -m 755 /run/munge
        runuser -u munge -- /usr/sbin/munged
    fi
    export SLURM_CONF=$FOLDER/slurm.conf
    slurmctld
    slurmd -N n1
    slurmd -N n2
    for _ in $(seq 60); do
        [ "$(sinfo --noheader --states=idle --format=%D 2> /dev/null)" = 2 ] && break
        sleep 0.5
    done
    sinfo
    [ "$(sinfo --noheader --states=idle --format=%D)" = 2 ] || { echo "the nodes are not idle; see $FOLDER/log" >&2; exit 1; }
}

stop() {
    for daemon in slurmd-n1 slurmd-n2 slurmctld; do
        if [ -f "$FOLDER/$daemon.pid" ]; then kill "$(cat "$FOLDER/$daemon.pid")" || true; fi
    done
}

case $ACTION in
    up) start ;;
    down) stop ;;
    *) echo "local_slurm.sh: $ACTION is neither up nor down" >&2; exit 2 ;;
esac
