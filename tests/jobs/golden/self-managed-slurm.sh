#!/usr/bin/env bash
# Runs dummy: the same steps on every backend.
# Given by the backend: MADENGINE_JOB (this job's folder), MADENGINE_WORKSPACE, MADENGINE_PROJECT, MADENGINE_OWNER.
set -u
mkdir -p "$MADENGINE_JOB/artifacts" "$MADENGINE_WORKSPACE" || exit
log="$MADENGINE_JOB/run.log" phases="$MADENGINE_JOB/phases" artifacts="$MADENGINE_JOB/artifacts"
run_dir="$MADENGINE_WORKSPACE"/run_directory
exec >>"$log" 2>&1 </dev/null
: >"$MADENGINE_JOB/started"
child='' moment=0 bytes=0

# Sets `moment` and `bytes`: the time and the log's size. Not by `$(...)`: while bash expands one, it loses trapped signals.
look() {
  { if [ -n "${EPOCHREALTIME:-}" ]; then printf '%s\n' "${EPOCHREALTIME/,/.}"; else date +%s; fi; wc -c <"$log"; } >"$MADENGINE_JOB/now"
  { read -r moment; read -r bytes; } <"$MADENGINE_JOB/now"
}
# SECONDS COMMAND...: within a time limit where the system has timeout(1)
limited() {
  local seconds=$1; shift
  if command -v timeout >/dev/null; then timeout -k 10 "$seconds" "$@"; else "$@"; fi
}
# NAME COMMAND...: runs a step in a process group of its own and notes how it went
phase() {
  local name=$1 from status start
  shift
  look
  start=$moment from=$bytes
  printf '%s %s - - %s -\n' "$name" "$start" "$from" >>"$phases"
  set -m
  "$@" &
  child=$!
  set +m
  wait "$child"
  status=$?
  child=''
  look
  printf '%s %s %s %s %s %s\n' "$name" "$start" "$moment" "$status" "$from" "$bytes" >>"$phases"
  return "$status"
}
stop() {
  trap '' TERM INT
  if [ -n "$child" ]; then end_group "$child"; fi
  finish 143
}
# PROCESS_GROUP: asks it to end and makes it end 5 s later
end_group() {
  local tenth
  kill -TERM -- "-$1"
  for ((tenth = 0; tenth < 50; tenth++)); do
    lives "$1" || return
    sleep 0.1
  done
  kill -KILL -- "-$1"
}
# PROCESS_GROUP: whether any of it lives; kill -0 alone also finds the dead that nobody has reaped yet
lives() {
  local file stat
  kill -0 -- "-$1" 2>/dev/null || return
  [ -e /proc/self/stat ] || return 0
  for file in /proc/[0-9]*/stat; do
    read -r stat <"$file" || continue
    stat=${stat##*) } # state, parent, group and more
    case ${stat#[!ZX] * } in "$1 "*) return 0 ;; esac
  done 2>/dev/null
  return 1
}
finish() {
  trap '' TERM INT
  keep_artifacts
  find_results
  empty_workspace
  rm -f "$MADENGINE_JOB/now"
  printf '%s\n' "$1" >"$MADENGINE_JOB/exit_code.new"
  if [ -n "${MADENGINE_OWNER:-}" ]; then chown -R "$MADENGINE_OWNER" "$MADENGINE_JOB"; fi
  mv "$MADENGINE_JOB/exit_code.new" "$MADENGINE_JOB/exit_code"
  exit "$1"
}
# What the user mounted into the workspace is not ours: seen through the job's folder, it is not there.
empty_workspace() {
  local place=$MADENGINE_JOB/workspace
  [ -d "$place" ] || place=$MADENGINE_WORKSPACE
  rm -rf "${place:?}"/* "$place"/.[!.]* "$place"/..?* 2>/dev/null
}
# FILE: whether it was written after `started`; bash alone compares whole seconds on some systems
newer() {
  if command -v find >/dev/null; then [ -n "$(find "$1" -prune -newer "$MADENGINE_JOB/started")" ]; else [ "$1" -nt "$MADENGINE_JOB/started" ]; fi
}
keep_artifacts() {
  local file
  for file in "$MADENGINE_WORKSPACE"/*.{csv,json} "$run_dir"/*.{csv,json}; do
    if [ -f "$file" ] && [ ! -L "$file" ] && newer "$file"; then cp -p "$file" "$artifacts/"; fi
  done
}
# FILE...: keeps those of one place that this run wrote; whether there were any
keep_results() {
  local file count=0
  for file; do
    if [ ! -f "$file" ] || [ -L "$file" ]; then continue; fi
    newer "$file" || { printf 'madengine: older than this run, no result of it: %s\n' "$file"; continue; }
    count=$((count + 1))
    printf 'madengine: results: %s\n' "$file"
    cp -p "$file" "$artifacts/selfmanaged-$count.csv" || : >"$artifacts/selfmanaged-$count.csv"
  done
  [ "$count" -gt 0 ]
}
# the first place that holds results counts
find_results() (
  : "${USER:=$(id -un)}"
  keep_results "${run_dir}/r 1/${USER}/${SLURM_JOB_ID}/perf"*".csv" && exit
  keep_results "${MADENGINE_WORKSPACE}/r 1/${USER}/${SLURM_JOB_ID}/perf"*".csv" && exit
  keep_results "${MADENGINE_PROJECT}/r 1/${USER}/${SLURM_JOB_ID}/perf"*".csv" && exit
  keep_results "/shared_inference/${USER}/${SLURM_JOB_ID}/perf.csv" && exit
  keep_results "/shared_inference/${USER}/model_blog_logs/${SLURM_JOB_ID}/perf.csv" && exit
  keep_results "${run_dir}/slurm_output/perf_csv/${SLURM_JOB_ID}"[!0-9]*"csv" && exit
  keep_results "${MADENGINE_WORKSPACE}/slurm_output/perf_csv/${SLURM_JOB_ID}"[!0-9]*"csv" && exit
  keep_results "${MADENGINE_PROJECT}/slurm_output/perf_csv/${SLURM_JOB_ID}"[!0-9]*"csv" && exit
  keep_results "${run_dir}/slurm_output/perf_csv/"*[!0-9]"${SLURM_JOB_ID}"[!0-9]*"csv" && exit
  keep_results "${MADENGINE_WORKSPACE}/slurm_output/perf_csv/"*[!0-9]"${SLURM_JOB_ID}"[!0-9]*"csv" && exit
  keep_results "${MADENGINE_PROJECT}/slurm_output/perf_csv/"*[!0-9]"${SLURM_JOB_ID}"[!0-9]*"csv" && exit
  keep_results "${run_dir}/perf"*".csv" && exit
  keep_results "${MADENGINE_WORKSPACE}/perf"*".csv" && exit
)

# the project's files, beside the place where the model runs; what an earlier run left there stays out of sight, and
# what may be a result of this run is a copy, so that a model that writes it leaves the project alone
link_project() {
  local entry name
  for entry in "$MADENGINE_PROJECT"/*; do
    name=${entry##*/}
    case $name in
      perf.csv | perf_* | common_info.json | credential.json | run_directory) continue ;;
    esac
    [ ! -e "$MADENGINE_WORKSPACE/$name" ] || continue # a mount of the user's
    if [ -f "$entry" ] && [[ $name == *.csv || $name == *.json ]]; then
      cp -p "$entry" "$MADENGINE_WORKSPACE/"
    else
      ln -s "$entry" "$MADENGINE_WORKSPACE/"
    fi || return
  done
}
# the model's scripts, copied with their times; a file counts as a result only when it is newer than `started`
prepare() {
  local entry
  mkdir -p "$run_dir" || return
  for entry in "$MADENGINE_PROJECT"/scripts/dummy/{*,.[!.]*,..?*}; do
    case ${entry##*/} in
      .madengine | .git | perf.csv | '*' | '.[!.]*' | '..?*') ;;
      *) cp -RLp "$entry" "$run_dir"/ || return ;;
    esac
  done
  : >"$MADENGINE_JOB/started" && sleep 0.02
}
model() (
  cd "$run_dir" || exit
  unset SLURM_EXPORT_ENV # what the batch job was given of the login node's environment is no rule for steps of the script
  exec bash -c 'bash run.sh'
)

trap stop TERM INT
printf 'madengine: %s on ' dummy && uname -n
link_project || finish 1
phase prepare prepare || finish $?
phase model model
status=$?
finish "$status"
