#!/usr/bin/env bash
export here=$1 rank=0 child='' patience=12
run() {
  local client
  client=$(type -P apptainer) || return 127
  variables
  local names=(ADDRESS MADENGINE_JOB MADENGINE_PROJECT MADENGINE_WORKSPACE MASTER_ADDR MODE OTHER PLAIN RANK TOKEN)
  export MADENGINE_JOB=/madengine/job MADENGINE_PROJECT=/madengine/project MADENGINE_WORKSPACE=/myworkspace MODE='it'"'"'s fast'
  exec "$client" exec --cleanenv --writable-tmpfs --rocm --home="$here/workspace:/myworkspace" --pwd=/myworkspace \
    --mount=type=bind,source="$here",destination=/madengine/job '--mount=type=bind,"source=/shared/my project","destination=/madengine/project"' '--mount=type=bind,"source=/data sets","destination=/data",ro' '--mount=type=bind,"source=/models","destination=/models",ro' \
    "$(cat /shared/.madengine/runs/run-1/jobs/m/images/"$(uname -n)")" \
    bash -c 'eval "$(cat)"; exec bash /madengine/job/run.sh' < <(declare -px "${names[@]}" 2>/dev/null)
}
stop() {
  [ -z "$child" ] || if [ "$patience" = 0 ]; then kill -KILL "$child"; else kill "$child"; fi 2>/dev/null
}
run &
child=$!
stop
