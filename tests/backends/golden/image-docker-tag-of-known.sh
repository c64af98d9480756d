#!/usr/bin/env bash
# Brings rocm/vllm:latest to one node, and notes which image that is.
# With the argument `verdict`: says why the job cannot run on its nodes, if it cannot.
set -u
notes=/shared/.madengine/runs/run-1/jobs/m/images
host=$(uname -n)

# TEXT: the reason for which this node cannot run the job
refuse() {
  printf '%s: %s\n' "$host" "$1" >"$notes/$host.refused"
  exit 1
}
# COMMAND...: refuses with its last words if it fails
must() {
  local said
  said=$("$@" 2>&1 </dev/null) || { printf '%s\n' "$said"; refuse "$1 $2 failed: $(tail -n 1 <<<"$said")"; }
}
verdict() {
  local note first
  for note in "$notes"/*.refused; do
    [ ! -e "$note" ] || { cat "$note"; return 1; }
  done
  set -- "$notes"/*
  first=$1
  [ "$#" -eq 2 ] && [ -e "$first" ] || { echo 'the image did not reach every node: see slurm.log'; return 1; }
  for note; do
    [ "$(cat "$first")" = "$(cat "$note")" ] || {
      echo "the nodes have different images: ${first##*/} has $(cat "$first"), ${note##*/} has $(cat "$note")"
      return 1
    }
  done
}
if [ "${1:-}" = verdict ]; then
  verdict
  exit
fi
mkdir -p "$notes" || exit
# NAME: the id of an image that is here
id_of() {
  local id
  id=$(docker image inspect --format='{{.Id}}' "$1" 2>/dev/null) && printf '%s\n' "${id#sha256:}"
}
[ "$(id_of rocm/vllm:latest)" = bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb ] || must docker pull --quiet rocm/vllm:latest
found=$(id_of rocm/vllm:latest) || refuse 'the image vanished'
[ "$found" = bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb ] || refuse 'rocm/vllm:latest is not the image sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'", but sha256:$found"
printf '%s\n' "$found" >"$notes/$host"
