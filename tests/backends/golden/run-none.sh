#!/usr/bin/env bash
export here=$1 rank=0 child='' patience=12
run() {
  variables
  MADENGINE_JOB=$here MADENGINE_WORKSPACE=$here/workspace MADENGINE_PROJECT='/shared/my project' exec "$BASH" "$here/run.sh"
}
stop() {
  [ -z "$child" ] || if [ "$patience" = 0 ]; then kill -KILL "$child"; else kill "$child"; fi 2>/dev/null
}
run &
child=$!
stop
