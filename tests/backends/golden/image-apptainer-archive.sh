#!/usr/bin/env bash
# Brings ci-m:0123 to one node, and notes which image that is.
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
file=/shared/.madengine/images/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.sif
new=$file.$host.$$
mkdir -p "${file%/*}" || exit
# one node converts it while the others wait; where there are no locks each does
exec 9>"$file.lock" && flock 9 2>/dev/null
[ -e "$file" ] || {
  trap 'rm -rf "$new"' EXIT
  archive='/shared/my images/a.tar'
  tar -xOf "$archive" manifest.json index.json 2>/dev/null | grep -q aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ||
    refuse "$archive holds another image than sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: remove it"
  must apptainer build --disable-cache "$new" 'docker-archive:/shared/my images/a.tar'
  mv "$new" "$file" || exit
}
printf '%s\n' "$file" >"$notes/$host"
