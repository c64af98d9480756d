#!/usr/bin/env bash
# Says what a node has to offer, and ends what it is told to. A line is `preflight`, the node's name, what it is about, and
# values, with tabs between them.
export PATH="${PATH:+$PATH:}/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/opt/rocm/bin" LC_ALL=C
{ . /etc/profile; module load rocm/6.4 'it'"'"'s'; } >/dev/null 2>&1
set -u
host=${SLURMD_NODENAME:-$(uname -n)}

say() {
  local IFS=$'\t'
  set -- preflight "$host" "${@//[[:cntrl:]]/ }"
  printf '%s\n' "$*"
}
ask() { timeout --kill-after=1 10 "$@" </dev/null 2>&1; }

query() {
  case $1 in
    nvidia-smi) ask "$1" --query-gpu=memory.free,memory.total --format=csv,nounits ;;
    amd-smi) ask "$1" metric --mem-usage --csv ;;
    rocm-smi) ask "$1" --showmeminfo vram --csv ;;
  esac
}
gpus() {
  local tool text code=none card line
  for tool in nvidia-smi amd-smi rocm-smi; do
    type -P "$tool" >/dev/null || continue
    text=$(query "$tool")
    code=$?
    say tool "$tool" "$code"
    while IFS= read -r line; do say gpu "$tool" "$line"; done <<<"$text"
    [ "$code" != 0 ] || break
  done
  [ "$code" = none ] || return
  for card in /sys/class/drm/card*/device; do
    [ -r "$card/mem_info_vram_total" ] || continue
    [ "$code" != none ] || say gpu sysfs total,used
    code=0
    say gpu sysfs "$(<"$card/mem_info_vram_total"),$(<"$card/mem_info_vram_used")"
  done
}

servers='^(ray::|VLLM::|([^ ]*/)?(raylet|vllm)( |$)|[^ ]*python[^ ]* (-m vllm|[^ ]*/vllm( |$)))'
# Processes that have memory of a GPU, as the drivers know them; those that hold a device, but for root's; and servers that
# are known by their names.
suspects() {
  local each argv
  for each in /sys/class/kfd/kfd/proc/[0-9]*; do
    ! grep -qsv '^0$' "$each"/vram_* || echo "${each##*/}"
  done
  ! type -P nvidia-smi >/dev/null || ask nvidia-smi --query-compute-apps=pid --format=csv,noheader
  timeout 10 find /proc/[0-9]*/fd -maxdepth 1 ! -uid 0 '(' -lname /dev/kfd -o -lname '/dev/nvidia[0-9]*' ')' \
    2>/dev/null | cut -d/ -f3
  for each in /proc/[0-9]*; do
    { mapfile -d '' -t -n 3 argv <"$each/cmdline"; } 2>/dev/null || continue
    [[ ! ${argv[*]-} =~ $servers ]] || echo "${each##*/}"
  done
}
started() { # PID: when a live process began, in ticks since the node did
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return
  read -ra stat <<<"${stat##*) }"
  [ "${stat[0]}" = Z ] || echo "${stat[19]}"
}
owner() { sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null; }
job() { # PID: the job it was started in
  local found
  found=$(sed -n 's|.*/job_\([0-9]*\)\(/.*\)*$|\1|p' "/proc/$1/cgroup" 2>/dev/null | head -n 1)
  echo "${found:-$({ tr '\0' '\n' <"/proc/$1/environ" | sed -n 's/^SLURM_JOB_ID=//p'; } 2>/dev/null)}"
}
called() { # PID: what it calls itself; its arguments may hold secrets
  local name
  { IFS= read -r -d '' name <"/proc/$1/cmdline" || [ "$name" ] || IFS= read -r name <"/proc/$1/comm"; } 2>/dev/null
  case $name in /*) name=${name##*/} ;; esac
  echo "${name%% *}"
}
processes() {
  local pid uid
  for pid in $(suspects | grep -x '[0-9][0-9]*' | sort -u); do
    uid=$(owner "$pid")
    say process "$pid" "$(started "$pid")" "$(id -nu "${uid:-?}" 2>/dev/null || echo "${uid:-?}")" \
      "$([ "$uid" != "$UID" ] || echo own)" "$(job "$pid")" "$(called "$pid")"
  done
}

disk() {
  local free
  free=$(ask df -k --output=avail "$1") && say disk "$1" "${free##*[!0-9]}"
}
runtime() {
  local text code root
  text=$(ask docker info --format '{{.DockerRootDir}}')
  code=$?
  root=$(grep -m 1 '^/' <<<"$text")
  say runtime "$code" "${root:-${text##*$'\n'}}"
  [ -z "$root" ] || disk "$root"
}

# PID STARTED: end a process of this user, if it is still the one that was meant
is_there() { [ "$(started "$1")" = "$2" ] && [ "$(owner "$1")" = "$UID" ]; }
ends_soon() {
  for _ in {1..30}; do
    is_there "$@" || return 0
    sleep 0.1
  done
  return 1
}
end() {
  is_there "$@" && kill -TERM "$1" || return
  ends_soon "$@" || { kill -KILL "$1" && ends_soon "$@"; } || return
  say ended "$1"
}
case $host in
  node1)
    end 12 345 &
    end 13 346 &
    ;;
esac
wait

say begun "${SLURM_JOB_NUM_NODES:-1}" "${SLURM_JOB_NODELIST:-$host}" "${SLURM_GPUS_ON_NODE:-}"
gpus &
processes &
disk "${TMPDIR:-/tmp}" &
runtime &
wait
say over
