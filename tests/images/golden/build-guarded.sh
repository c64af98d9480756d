#!/usr/bin/env bash
#SBATCH --job-name=madengine-build-x.ubuntu
#SBATCH --comment=20260101-run-x.ubuntu-HASH
#SBATCH --output=/site/20260101-run/images/x.ubuntu-HASH/slurm.log
#SBATCH --export=HOME,USER,LOGNAME,LANG,MADENGINE_DOCKER_CONFIG,MADENGINE_HIDDEN,MADENGINE_PASSWORD_0,MADENGINE_PASSWORD_1,MAD_SECRETS_TOKEN
#SBATCH --no-requeue
#SBATCH --partition=cpu
#SBATCH --nodes=1
#SBATCH --time=02:00:00
#SBATCH --exclude=node1
#SBATCH --account=ml
#SBATCH --mem=16G
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
[ ! -r /etc/profile ] || . /etc/profile
module load docker/27 || exit

ulimit -n 4096

docker buildx version >/dev/null || exit

step=login
login=$(mktemp -d "${TMPDIR:-/tmp}/madengine-docker-XXXXXX") || exit
# logged in apart from the user's own configuration, which is otherwise as it was
for entry in "${DOCKER_CONFIG:-${HOME:-}/.docker}"/*; do
  [ "${entry##*/}" = config.json ] || [ ! -e "$entry" ] || ln -s "$entry" "$login/"
done
export DOCKER_CONFIG="$login"
(umask 077 && printf '%s' "$MADENGINE_DOCKER_CONFIG" >"$login/config.json") || exit
printf '%s' "$MADENGINE_PASSWORD_0" | docker login --username 'o'"'"'neil' --password-stdin reg.example || exit
unset MADENGINE_PASSWORD_0
printf '%s' "$MADENGINE_PASSWORD_1" | docker login --username hub --password-stdin || exit
unset MADENGINE_PASSWORD_1
unset MADENGINE_DOCKER_CONFIG

# what is secret stays out of the log
mapfile -t hidden < <(printf '%s\n' "$MADENGINE_HIDDEN")
unset MADENGINE_HIDDEN
hide() {
  local line secret
  while IFS= read -r line || [ -n "$line" ]; do
    for secret in "${hidden[@]}"; do line=${line//"$secret"/***}; done
    printf '%s\n' "$line"
  done
}

step=build
docker buildx build --load --progress=plain --network=host --tag reg.example/ml/ci-x:1 --file /site/20260101-run/images/x.ubuntu-HASH/x.ubuntu.Dockerfile '--build-arg=FLAVOUR=it'"'"'s $weet' --build-arg=MAD_SECRETS_TOKEN --secret=id=MAD_SECRETS_TOKEN,env=MAD_SECRETS_TOKEN --pull --cache-from=reg.example/ml/ci-x:1 --cache-to=type=inline /site/docker 2>&1 | hide >"$dir/build.log"
built=${PIPESTATUS[0]}
[ "$built" = 0 ] || exit "$built"

step=push
push() { docker push reg.example/ml/ci-x:1 >"$dir/push.log" 2>&1; }
push || { sleep 1 && push; } || { sleep 2 && push; } || exit
docker image inspect --format='{{.Id}}{{range .Config.Env}}{{println}}{{.}}{{end}}' reg.example/ml/ci-x:1 |
  grep -E '^(sha256:|ROCM_PATH=|ROCM_HOME=)' >"$dir/image" || exit
step=pushed
