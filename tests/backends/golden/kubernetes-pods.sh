#!/usr/bin/env bash
# Runs llama3-8b in one of 4 pods. What is printed is the pod's log; the results are ready when the exit code is.
set -u
files=/madengine/files
export MADENGINE_JOB=/madengine/job MADENGINE_PROJECT=/madengine/project MADENGINE_WORKSPACE=/myworkspace
rank=${JOB_COMPLETION_INDEX:-}
child='' ending='' status=''

# REASON: nobody could have run the model like this
give_up() {
  printf 'madengine: %s\n' "$1"
  printf '%s\n' "$1" >/dev/termination-log
  exit 86
}
# TERM and USR1 end the model; its results are kept
stop() {
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap 'ending=yes; stop' TERM INT
trap 'ending=yes; stop' USR1

# The project's files, where the model may write to them; files that were too large for one piece are put together.
unpack() {
  if [ -d "$files/project" ]; then cp -RLp "$files/project/." "$MADENGINE_PROJECT/" || return; fi
  mkdir -p "$MADENGINE_PROJECT"/'scripts/my model' && cat "$files"/parts/0/* >"$MADENGINE_PROJECT"/'scripts/my model/large.bin' || return
  chmod 751 "$MADENGINE_PROJECT"/'scripts/my model/large.bin' || return
}
# NAME: its address
address_of() {
  local address
  read -r address _ < <(getent ahostsv4 "$1" || getent ahosts "$1") && printf '%s\n' "$address"
}
# Pods have names as soon as they have addresses, which is before their images are there; that of this one must be
# known too, since others and itself listen and call under it.
find_pods() {
  local host address number=0
  for host in ${NODE_LIST//,/ }; do
    until address=$(address_of "$host"); do
      [ -z "$ending" ] || exit 143
      [ "$SECONDS" -lt 600 ] || give_up "no pod is known as $host after 600 s: is the cluster's DNS at work?"
      sleep 1
    done
    [ "$number" != "$rank" ] || address=$MAD_K8S_POD_IP
    NODE_IPS=${NODE_IPS:+$NODE_IPS,}$address number=$((number + 1))
  done
}

# The GPUs of this machine, as NAME=VALUE.
machine() {
  local file text version=0 gpus=0 name driver
  for file in /sys/class/kfd/kfd/topology/nodes/*/properties; do
    text=$(cat "$file" 2>/dev/null)
    case $text in *simd_count\ [1-9]*) ;; *) continue ;; esac
    gpus=$((gpus + 1)) version=${text##*gfx_target_version } version=${version%%[!0-9]*}
  done
  if [ "$gpus" -gt 0 ]; then
    printf 'vendor=AMD\ngpus=%d\narchitecture=gfx%d%x%x\n' "$gpus" $((version / 10000)) $((version % 10000 / 100)) $((version % 100))
    printf 'toolkit=%s\ndriver=%s\n' "$(cut -d. -f1,2 "${ROCM_PATH:-/opt/rocm}/.info/version" 2>/dev/null)" "$(cat /sys/module/amdgpu/version 2>/dev/null)"
  elif text=$(timeout 60 nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null); then
    IFS=, read -r name driver _ <<<"$text"
    printf 'vendor=NVIDIA\ngpus=%d\narchitecture=%s\nproduct=%s\n' "$(wc -l <<<"$text")" "$name" "$name"
    printf 'toolkit=%s\ndriver=%s\n' "${driver# }" "${driver# }"
  fi
}
fact() { sed -n "s/^$1=//p" "$MADENGINE_JOB/machine"; }

# whose variables may name other commands than those of this script
variables() {
  export MADENGINE_JOB_ID=madengine-run-1-llama3-8b-0123abcd RANK="$rank" NODE_RANK="$rank" MAD_NODE_RANK="$rank" MAD_TOTAL_NODES=4
  export NNODES=4 WORLD_SIZE=8 NPROC_PER_NODE=2 GPUS_PER_NODE=2
  export NODE_LIST NODE_IPS MASTER_ADDR="${NODE_LIST%%,*}" MASTER_PORT=29500 TORCH_ELASTIC_RDZV_TIMEOUT=3600
  export MAD_DEPLOYMENT_TYPE=kubernetes MAD_K8S_JOB=true MIOPEN_USER_DB_PATH="/tmp/.miopen/node_${rank}_rank_${LOCAL_RANK:-0}"
  export MAD_DATAHOME=/data
  if [ -s "$MADENGINE_JOB/machine" ]; then
    MAD_SYSTEM_NGPUS=$(fact gpus) MAD_SYSTEM_GPU_ARCHITECTURE=$(fact architecture)
    MAD_SYSTEM_GPU_PRODUCT_NAME=$(fact product) MAD_SYSTEM_HIP_VERSION=$(fact toolkit)
    export MAD_SYSTEM_NGPUS MAD_SYSTEM_GPU_ARCHITECTURE MAD_SYSTEM_GPU_PRODUCT_NAME MAD_SYSTEM_HIP_VERSION
  fi
  # a server that other pods use is to listen where they look
  export VLLM_HOST_IP="$MAD_K8S_POD_IP" SGLANG_HOST_IP="$MAD_K8S_POD_IP"
  # a pod has only the GPUs that it was given, and they count from 0
  export ROCR_VISIBLE_DEVICES=0,1 HIP_VISIBLE_DEVICES=0,1
  export MAD_MULTI_NODE_RUNNER="torchrun --node_rank=${NODE_RANK} --master_addr=${MASTER_ADDR} --x=\$HOME"
  export PLAIN='it'"'"'s $shown'
  export OMP_NUM_THREADS=8
}

run() {
  variables
  [ ! -e /madengine/credential/credential.json ] || cp /madengine/credential/credential.json "$MADENGINE_WORKSPACE/"
  exec bash "$files/run.sh"
}

# the results in one place, the exit code last: what could not be kept is no success
keep() {
  local place=/results/madengine-llama3-8b-7baebad199/$rank/$MAD_K8S_POD_NAME name
  mkdir -p "$place" || return
  printf '%s\n' "$status" >"$MADENGINE_JOB/status" || return
  for name in run.log phases started git_commit artifacts machine host balancer.log status exit_code; do
    [ ! -e "$MADENGINE_JOB/$name" ] || cp -R "$MADENGINE_JOB/$name" "$place/" || return
  done
}

[ -n "$rank" ] || give_up 'the cluster did not number the pods: Kubernetes 1.22 and later do'
unpack || give_up 'the scripts could not be copied to where the model runs'
NODE_LIST=madengine-llama3-8b-7baebad199-0.madengine-llama3-8b-7baebad199,madengine-llama3-8b-7baebad199-1.madengine-llama3-8b-7baebad199,madengine-llama3-8b-7baebad199-2.madengine-llama3-8b-7baebad199,madengine-llama3-8b-7baebad199-3.madengine-llama3-8b-7baebad199 NODE_IPS=
find_pods
machine >"$MADENGINE_JOB/machine"
printf '%s\n' "$MAD_K8S_NODE_NAME" >"$MADENGINE_JOB/host"
: >"$MADENGINE_JOB/run.log"
run &
child=$!
tail -n +1 -f -s 0.2 --pid="$child" "$MADENGINE_JOB/run.log" &
tail=$!
[ -z "$ending" ] || stop
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do
  wait "$child"
  status=$?
done
child=''
wait "$tail"
keep || {
  printf 'madengine: what the model wrote could not be kept\n'
  exit 87
}
exit "$status"
