#!/usr/bin/env bash
# A real SLURM cluster for the tests: a controller and four nodes, each with its own network, processes and hostname,
# on this machine's filesystem. DBD=1 in the environment means another such cluster, one that keeps accounts.
#   slurm.sh ensure                reuse a live cluster, mend a hurt one, else install and start one
#   slurm.sh status                one line; exit 0 if the cluster is whole
#   slurm.sh stop                  end what `ensure` started, and nothing else
#   slurm.sh env                   what a client needs in its environment, for `eval`
#   slurm.sh kill-node|start-node N            cut its power; switch it on again and wait until it serves
#   slurm.sh unplug-node|plug-node N           its network cable
#   slurm.sh kill-controller|restart-controller
# Exit status 3: this machine or user cannot have one; the message names what is needed.
set -euo pipefail
export LC_ALL=C
umask 022
PATH=$PATH:/usr/sbin:/sbin

self=$(realpath "${BASH_SOURCE[0]}")
nodes=4
daemon_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
accounting=${DBD:-0}
packages=(iproute2 munge slurm-client slurm-wlm-basic-plugins slurmctld slurmd)
programs=(ip munged sbatch slurmctld slurmd unshare)
state=${MADENGINE_ENGINES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pytest-madengine/engines}/slurm
if [[ $accounting == 1 ]]; then
  state+=-accounting
  packages+=(mariadb-client-core mariadb-server-core slurm-wlm-mysql-plugin slurmdbd)
  programs+=(mariadb mariadb-install-db mariadbd slurmdbd)
fi
state=$(realpath -m "$state")
run=$state/run
spool=/run/madengine-slurm # of each node, which every user may enter
export SLURM_CONF=$state/etc/slurm.conf

say() { echo "slurm.sh: $*" >&2; }

cannot() {
  say "$*"
  say "needed: root on Debian 12 or newer, allowed to make network, process and mount namespaces"
  exit 3
}

within() { # within SECONDS COMMAND...: until it succeeds
  local deadline=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# Daemons

pid_of() { cat "$run/$1.pid" 2>/dev/null || echo none; }

# True for a live process of this cluster: pids are reused, and a zombie would still answer kill -0.
is_ours() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) && [[ ${stat##*) } != Z* ]] &&
    grep -qszxF "MADENGINE_SLURM=$state" "/proc/$1/environ"
}

lives() { is_ours "$(pid_of "$1")"; }

is_gone() { ! is_ours "$1"; }

# 9 is the lock of `ensure`, which must not outlive it in a daemon.
start() { # start NAME COMMAND...
  local name=$1
  (
    cd /
    exec setsid env -i PATH="$daemon_path" HOME=/root LANG=C.UTF-8 MADENGINE_SLURM="$state" "${@:2}"
  ) >>"$state/log/$name.out" 2>&1 </dev/null 9>&- &
  echo $! >"$run/$name.pid"
}

end() { # end NAME SIGNAL
  local pid
  pid=$(pid_of "$1")
  if is_ours "$pid"; then
    kill -"$2" "$pid"
    within 30 is_gone "$pid" || {
      say "$1 ($pid) is still running after 30 s"
      exit 1
    }
  fi
  rm -f "$run/$1.pid"
}

failed() { # failed NAME: it did not come up
  say "$1 did not come up; the end of its log:"
  tail -n 20 "$state/log/$1".* >&2
  exit 1
}

# Network: the switch of a private subnet has a namespace of its own, where Docker's rules do not reach. The controller
# lives there (.253), so its ports are nobody else's; this machine is .254.

subnet() { cat "$run/subnet" 2>/dev/null || echo none; }

name() { echo "madslurm$(subnet)"; }

address() { echo "10.$(subnet).0.$1"; }

has_network() { [[ -e /run/netns/$(name) && -e /sys/class/net/$(name) ]]; }

is_free() { # to make a namespace of that name is what claims the subnet
  ! ip -4 -o address show | grep -q " 10\.$1\." && ! ip -4 route show | grep -qE "(^| )10\.$1\." &&
    ip netns add "madslurm$1" 2>/dev/null
}

make_network() {
  local free
  remove_network
  for free in {77..99} none; do
    if [[ $free == none ]]; then cannot "no network namespace or no subnet 10.77-99.0.0/24 to be had"; fi
    ! is_free "$free" || break
  done
  echo "$free" >"$run/subnet"
  ip -n "$(name)" link add switch type bridge
  ip -n "$(name)" address add "$(address 253)/24" dev switch
  ip -n "$(name)" link set switch up
  ip -n "$(name)" link set lo up
  ip link add "$(name)" type veth peer name machine netns "$(name)"
  ip -n "$(name)" link set machine master switch up
  ip address add "$(address 254)/24" dev "$(name)"
  ip link set "$(name)" up
}

remove_network() {
  ip link delete "$(name)" 2>/dev/null || true
  ip netns delete "$(name)" 2>/dev/null || true
}

# Configuration

slurm_conf() {
  cat <<CONF
ClusterName=madengine
SlurmctldHost=localhost($(address 253))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$run/munge.socket
StateSaveLocation=$state/state
SlurmdSpoolDir=$spool
SlurmctldPidFile=$run/slurmctld.own.pid
SlurmdPidFile=$run/slurmd.%n.own.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=15
KillWait=20
MinJobAge=600
GresTypes=gpu
NodeName=node[1-2] NodeAddr=$(address '[1-2]') CPUs=8 RealMemory=4000 Gres=gpu:8 Feature=big
NodeName=node[3-$nodes] NodeAddr=$(address "[3-$nodes]") CPUs=8 RealMemory=4000 Gres=gpu:8 Feature=small
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
PartitionName=debug Nodes=node[1-2] MaxTime=10
CONF
  [[ $accounting == 0 ]] || cat <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$(address 253)
AccountingStoragePass=$run/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
CONF
}

slurmdbd_conf() {
  cat <<CONF
DbdHost=localhost
DbdAddr=$(address 253)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$run/munge.socket
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
PidFile=$run/slurmdbd.own.pid
LogFile=$state/log/slurmdbd.log
CONF
}

hosts() {
  cat /etc/hosts
  local node
  for ((node = 1; node <= nodes; node++)); do echo "$(address "$node") node$node"; done
}

configure() {
  local gpu
  slurm_conf >"$state/etc/slurm.conf"
  slurmdbd_conf >"$state/etc/slurmdbd.conf"
  hosts >"$state/hosts"
  # a GPU's file must be a character device
  for gpu in {0..7}; do ln -sfn /dev/null "$state/gpu$gpu"; done
  echo "NodeName=node[1-$nodes] Name=gpu File=$state/gpu[0-7]" >"$state/etc/gres.conf"
}

# False for a cluster that another version of this script made.
is_current() { has_network && slurm_conf | cmp -s - "$SLURM_CONF"; }

# The parts, from the bottom up

start_munged() {
  (umask 077 && [[ -s $state/munge.key ]] || head -c 1024 /dev/urandom >"$state/munge.key")
  start munged munged --foreground --force --key-file="$state/munge.key" --socket="$run/munge.socket" \
    --pid-file="$run/munged.own.pid" --seed-file="$state/munge.seed" --log-file="$state/log/munged.log"
  within 10 munge --socket="$run/munge.socket" --no-input || failed munged
}

sql() { mariadb --no-defaults --socket="$run/mariadb.socket" --execute "$1"; }

start_mariadb() {
  local own=(--no-defaults --user=root --datadir="$state/db" --innodb-log-file-size=8M)
  if [[ ! -e $state/db/made ]]; then
    rm -rf "$state/db"
    mariadb-install-db "${own[@]}" --skip-test-db >"$state/log/mariadb-install.out" 2>&1 || failed mariadb-install
    touch "$state/db/made"
  fi
  start mariadb mariadbd "${own[@]}" --socket="$run/mariadb.socket" --pid-file="$run/mariadb.own.pid" \
    --skip-networking --innodb-flush-log-at-trx-commit=0
  within 30 sql 'create database if not exists slurm' || failed mariadb
}

accounts() { sacctmgr --immediate --quiet "$@"; }

start_slurmdbd() {
  chmod 600 "$state/etc/slurmdbd.conf"
  start slurmdbd nsenter --net="/run/netns/$(name)" \
    env MYSQL_UNIX_PORT="$run/mariadb.socket" SLURM_CONF="$SLURM_CONF" slurmdbd -D
  within 30 sacctmgr --noheader show cluster || failed slurmdbd
  [[ $(sacctmgr --noheader show account research) ]] || {
    accounts add cluster madengine
    accounts add qos urgent
    accounts add account research Cluster=madengine
    accounts add user root Account=research
    accounts modify user root set qos=normal,urgent
  } >"$state/log/sacctmgr.out" || failed sacctmgr
}

controller_answers() { [[ $(scontrol ping 2>/dev/null) == *' UP'* ]]; }

start_controller() {
  start slurmctld nsenter --net="/run/netns/$(name)" slurmctld -D -f "$SLURM_CONF"
  within 20 controller_answers || failed slurmctld
}

start_node() {
  lives "node$1" || power_on "$1"
  await_node "$1"
}

power_on() {
  end "node$1.init" KILL
  start "node$1" unshare --net --pid --uts --mount --propagation slave --fork \
    env DBD="$accounting" MADENGINE_ENGINES_DIR="$(dirname "$state")" "$self" be-node "$1"
}

# The first process of a node, which its others are children of.
be_node() {
  read -r pid _ </proc/self/stat # as this machine knows it: /proc is still this machine's
  echo "$pid" >"$run/node$1.init.pid"
  hostname "node$1"
  mount -t proc proc /proc
  mount --bind "$state/hosts" /etc/hosts
  mount --bind "$state/etc" /etc/slurm
  mkdir -p "$state/spool/node$1" "$spool"
  mount --bind "$state/spool/node$1" "$spool"
  ip -n "$(name)" link delete "port$1" 2>/dev/null || true # of its life before
  ip link set lo up
  # always the same hardware address: the other nodes remember it
  ip link add eth0 address "02:00:00:00:00:0$1" type veth peer name "port$1" netns "$(name)"
  ip -n "$(name)" link set "port$1" master switch up
  ip address add "$(address "$1")/24" dev eth0
  ip link set eth0 up
  slurmd -D -f "$SLURM_CONF" -N "node$1" &
  while :; do wait -n || sleep 1; done # reaps orphans
}

usable_nodes() {
  sinfo --noheader --partition=main --states=idle,alloc,mix,comp --Node --format='%N %T' 2>/dev/null | grep -cv '\*'
}

all_usable() { [[ $(usable_nodes) == "$nodes" ]]; }

# The node will log that somebody called and said nothing.
is_on() { timeout 1 bash -c ": </dev/tcp/$(address "$1")/6818"; }

# What was set down by hand stays down unless it is told otherwise.
is_usable() {
  local now
  now=$(sinfo --noheader --nodes="node$1" --partition=main --format=%T)
  [[ $now != *@(down|drain|fail)* ]] || scontrol update nodename="node$1" state=resume
  [[ $now == @(idle|allocated|mixed|completing) ]] && is_on "$1"
}

await_node() { within 30 is_usable "$1" || failed "node$1"; }

mend() { # the rest of `ensure`, when something is missing
  local node
  ((EUID == 0)) || cannot "no usable cluster, and this user may not make one"
  ((${#run} < 90)) || cannot "the path $run is too long for a socket in it"
  install_missing
  mkdir -p "$state"/{etc,log,spool,state}
  is_current || { end_all && make_network && configure; }
  lives munged || start_munged
  [[ $accounting == 0 ]] || lives mariadb || start_mariadb
  [[ $accounting == 0 ]] || lives slurmdbd || start_slurmdbd
  lives slurmctld || start_controller
  for ((node = 1; node <= nodes; node++)); do lives "node$node" || power_on "$node"; done
  for ((node = 1; node <= nodes; node++)); do plug_node "$node" && await_node "$node"; done
}

is_whole() {
  local part parts=(munged slurmctld)
  for ((part = 1; part <= nodes; part++)); do parts+=("node$part"); done
  [[ $accounting == 0 ]] || parts+=(mariadb slurmdbd)
  for part in "${parts[@]}"; do lives "$part" || return 1; done
  is_current && controller_answers && all_usable
}

install_missing() {
  [[ $(type -P "${programs[@]}" | wc -l) != "${#programs[@]}" ]] || return 0
  # shellcheck source=/dev/null
  (. /etc/os-release && [[ $ID == debian ]] && ((${VERSION_ID:-99} >= 12))) 2>/dev/null || cannot "not Debian 12 or newer"
  say "installing ${packages[*]}"
  apt_get update || say "apt-get update met errors; going on"
  apt_get install -y --no-install-recommends "${packages[@]}" || cannot "apt-get cannot install them"
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$state/apt.log" 2>&1 || {
    tail -n 20 "$state/apt.log" >&2
    return 1
  }
}

# What is asked for on the command line

ensure() {
  mkdir -p "$run"
  exec 9>"$state/lock"
  flock 9
  is_whole || mend
  status
}

status() {
  is_whole || {
    echo "slurm: no whole cluster in $state"
    return 1
  }
  echo "slurm: $(sinfo --version), $nodes nodes, $([[ $accounting == 1 ]] || echo 'no ')accounting, SLURM_CONF=$SLURM_CONF"
}

end_all() {
  local node
  for ((node = 1; node <= nodes; node++)); do kill_node "$node"; done
  end slurmctld TERM
  end slurmdbd TERM
  end mariadb TERM
  end munged TERM
}

stop() {
  [[ -d $run ]] || return 0
  exec 9>"$state/lock"
  flock 9
  end_all
  remove_network
  rm -rf "${state:?}"/{db,etc,run,spool,state}
}

client_environment() { echo "export SLURM_CONF=${SLURM_CONF@Q}"; }

kill_node() {
  end "node$1.init" KILL
  end "node$1" KILL # waits for the other
}

cable() { ip -n "$(name)" link set "port$1" "$2"; }

unplug_node() { cable "$1" down; }

plug_node() { within 5 cable "$1" up; }

restart_controller() {
  end slurmctld TERM
  start_controller
}

usage() {
  say "usage: slurm.sh ensure|status|stop|env|kill-controller|restart-controller," \
    "slurm.sh kill-node|start-node|unplug-node|plug-node 1..$nodes"
  exit 2
}

case "$#:${1:-}" in
  1:ensure | 1:status | 1:stop) "$1" ;;
  1:env) client_environment ;;
  1:kill-controller) end slurmctld KILL ;;
  1:restart-controller) restart_controller ;;
  2:be-node | 2:kill-node | 2:start-node | 2:unplug-node | 2:plug-node)
    [[ $2 == [1-"$nodes"] ]] || usage
    "${1/-/_}" "$2"
    ;;
  *) usage ;;
esac
