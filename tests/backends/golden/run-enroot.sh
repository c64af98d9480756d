#!/usr/bin/env bash
export here=$1 rank=0 child='' patience=12
run() {
  local client
  client=$(type -P enroot) || return 127
  variables
  local names=(ADDRESS MADENGINE_JOB MADENGINE_PROJECT MADENGINE_WORKSPACE MASTER_ADDR MODE OTHER PLAIN RANK TOKEN)
  export MADENGINE_JOB=/madengine/job MADENGINE_PROJECT=/madengine/project MADENGINE_WORKSPACE=/myworkspace MODE='it'"'"'s fast'
  export ENROOT_DATA_PATH="$here/containers"
  printf 'exec "$@"\n' >"$here/rc" && mkdir "$ENROOT_DATA_PATH" && "$client" create --name model "$(cat /shared/.madengine/runs/run-1/jobs/m/images/"$(uname -n)")" || return
  exec "$client" start --root --rw --rc "$here/rc" --mount="$here:/madengine/job:none:x-create=auto,rbind" \
    --mount="$here/workspace:/myworkspace:none:x-create=auto,rbind" '--mount=/shared/my\040project:/madengine/project:none:x-create=auto,rbind' '--mount=/data\040sets:/data:none:x-create=auto,rbind,ro' --mount=/models:/models:none:x-create=auto,rbind,ro \
    model \
    bash -c 'eval "$(cat)"; exec bash /madengine/job/run.sh' < <(declare -px "${names[@]}" 2>/dev/null)
}
stop() {
  [ -z "$child" ] || if [ "$patience" = 0 ]; then kill -KILL "$child"; else kill "$child"; fi 2>/dev/null
}
run &
child=$!
stop
