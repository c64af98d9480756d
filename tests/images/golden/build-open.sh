#!/usr/bin/env bash
#SBATCH --job-name=madengine-build-x.ubuntu
#SBATCH --comment=20260101-run-x.ubuntu-HASH
#SBATCH --output=/site/20260101-run/images/x.ubuntu-HASH/slurm.log
#SBATCH --export=HOME,USER,LOGNAME,LANG
#SBATCH --no-requeue
#SBATCH --nodes=1
#SBATCH --time=02:00:00
# Builds docker/x.ubuntu.Dockerfile on a node and pushes it. How far that came is written to `ended`, last of all.
set -u
dir=/site/20260101-run/images/x.ubuntu-HASH
export PATH="${PATH:+$PATH:}/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" NO_COLOR=1
step=prepare login=
finish() {
  status=$?
  trap '' TERM INT
  [ -z "$login" ] || rm -rf "$login"
  printf '%s %s\n' "$step" "$status" >"$dir/ended.new" && mv "$dir/ended.new" "$dir/ended"
}
trap finish EXIT
trap 'step=stopped; exit 143' TERM INT
uname -n >"$dir/host"
docker buildx version >/dev/null || exit

step=build
docker buildx build --load --progress=plain --network=host --tag reg.example/ml/ci-x:1 --file /site/20260101-run/images/x.ubuntu-HASH/x.ubuntu.Dockerfile '--build-arg=FLAVOUR=it'"'"'s $weet' --pull --cache-from=reg.example/ml/ci-x:1 --cache-to=type=inline /site/docker >"$dir/build.log" 2>&1 || exit

step=push
push() { docker push reg.example/ml/ci-x:1 >"$dir/push.log" 2>&1; }
push || { sleep 1 && push; } || { sleep 2 && push; } || exit
docker image inspect --format='{{.Id}}{{range .Config.Env}}{{println}}{{.}}{{end}}' reg.example/ml/ci-x:1 |
  grep -E '^(sha256:|ROCM_PATH=|ROCM_HOME=)' >"$dir/image" || exit
step=pushed
