#!/usr/bin/env bash
export here=$1 rank=0 child='' patience=12
run() {
  local client
  client=$(type -P docker) || return 127
  variables
  local name given=()
  for name in ADDRESS MASTER_ADDR OTHER PLAIN RANK TOKEN; do given+=("--env=$name"); done
  [ ! -e /dev/fuse ] || given+=(--device=/dev/fuse)
  [ ! -e /dev/kfd ] || given+=(--device=/dev/kfd)
  [ ! -e /dev/dri ] || given+=(--device=/dev/dri)
  given+=(--init --env=MADENGINE_OWNER="$(id -u):$(id -g)")
  "$client" run --sig-proxy=false "${given[@]}" \
    --mount=type=bind,source="$here",target=/madengine/job --mount=type=bind,source="$here/workspace",target=/myworkspace \
    --user=root --network=host --ipc=host --group-add=video --cap-add=SYS_PTRACE --cap-add=SYS_ADMIN --security-opt=seccomp=unconfined --security-opt=apparmor=unconfined '--mount=type=bind,"source=/shared/my project",target=/madengine/project' '--volume=/data sets:/data:ro' --workdir=/myworkspace --env=MADENGINE_JOB=/madengine/job --env=MADENGINE_PROJECT=/madengine/project --env=MADENGINE_WORKSPACE=/myworkspace --shm-size 64g -v /models:/models:ro '--env=MODE=it'"'"'s fast' -e PLAIN --entrypoint=bash --label=madengine.run=run-1 --label=madengine.job=madengine-run-1-m \
    --rm --name=madengine-run-1-m-"$rank" "$(cat /shared/.madengine/runs/run-1/jobs/m/images/"$(uname -n)")" /madengine/job/run.sh
}
stop() {
  for _ in {1..100}; do if [ "$patience" = 0 ]; then docker rm --force madengine-run-1-m-"$rank"; else docker stop -t "$patience" madengine-run-1-m-"$rank"; fi >/dev/null 2>&1; [ "$(docker ps --all --quiet --filter=name=^/?madengine-run-1-m-"$rank"$ && echo gone)" != gone ] || break; sleep 0.1; done 2>/dev/null
}
run &
child=$!
stop
