#!/usr/bin/env bash
# Build Kubernetes 1.20.2 from the source package of Debian 12, and unpack beside it what it needs to run; nothing is
# installed. Five minutes on two cores. Whoever wants the same folder meanwhile waits; what a dead build left is removed.
#   build.sh FOLDER    then FOLDER/bin has the programs and FOLDER/cni the network plugins
# Exit status 3: this machine cannot build it; the message names what is needed.
set -euo pipefail
export LC_ALL=C

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
folder=$(realpath -m "$1")
work=$folder.part
log=$folder.log
version=1.20.2
packages=(containerd containernetworking-plugins etcd-server golang-1.19-go golang-1.19-src
  golang-github-modern-go-reflect2-dev runc)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "kube/build.sh: $*" >&2; }

cannot() {
  say "$*"
  say "needed: an amd64 machine whose apt sources name a Debian mirror with bookworm, git, and 2 GB in $(dirname "$folder")"
  exit 3
}

logged() { # logged COMMAND...
  "$@" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    cannot "this failed: $*"
  }
}

# Packages, by private lists, so that the machine's own apt stays as it is

apt_get() {
  apt-get -qq -o Dir::Etc::sourcelist="$work/bookworm.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache" \
    -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

mirror() { # mirror [APT OPTION...]
  # shellcheck disable=SC2016  # REPO_URI is apt's to fill in
  apt-get "$@" indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1
}

mirror_by_fresh_lists() {
  local private=(-o Dir::State::lists="$work/lists" -o Acquire::Languages=none -o APT::Sandbox::User=root)
  apt-get -qq "${private[@]}" update >>"$log" 2>&1 || say "apt-get update met errors; going on"
  mirror "${private[@]}"
}

download() {
  local from
  mkdir -p "$work"/{lists,cache/archives}/partial "$work/download"
  from=$(mirror)
  from=${from:-$(mirror_by_fresh_lists)}
  [[ $from ]] || cannot "no Debian mirror in this machine's apt sources"
  printf "%s [signed-by=$keyring] $from bookworm main\n" deb deb-src >"$work/bookworm.list"
  logged apt_get update
  cd "$work/download"
  logged apt_get download "${packages[@]}"
  logged apt_get source --download-only kubernetes
  [[ -e $(echo kubernetes_*"$version".orig.tar.gz) ]] || cannot "Debian's source is no longer $version"
}

unpack() {
  local package
  for package in *.deb; do dpkg-deb --extract "$package" "$work/root"; done
  mkdir -p "$source"
  tar -xzf kubernetes_*.orig.tar.gz -C "$source" --strip-components=1
  cd "$source"
  # with Go of 1.18 or newer the apiserver crashes on the vendored 1.0.1
  local reflect2=vendor/github.com/modern-go/reflect2
  cp "$work/root/usr/share/gocode/src/github.com/modern-go/reflect2"/*.go $reflect2
  rm -f $reflect2/go_{above_17,below_17,below_19}.go $reflect2/*_test.go
  # outside any repository git would look for one above
  logged env GIT_DIR=/dev/null git apply "$here"/{job-fields,node-capacity}.patch
}

# Go's old GOPATH mode: this Go refuses the source's go.mod

go_environment() {
  export GOROOT=$work/root/usr/lib/go-1.19 GOPATH=$work/gopath GOCACHE=${GOCACHE:-$work/gocache}
  export GO111MODULE=off GOFLAGS='' CGO_ENABLED=0
  PATH=$GOROOT/bin:$PATH
}

with_openapi() {
  grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd plugin staging/src/k8s.io | sed 's#^staging/src/#vendor/#' |
    xargs -n 1 dirname | sort -u | grep -v -e vendor/k8s.io/code-generator -e vendor/k8s.io/sample-apiserver
}

generate_openapi() {
  logged go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  logged "$work/openapi-gen" --logtostderr -i "$(with_openapi | sed 's#^#k8s.io/kubernetes/#' | paste -sd,)" \
    -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi -r "$work/violations" \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt
}

compile() {
  local place flags='-s -w' vendored=k8s.io/kubernetes/vendor/k8s.io
  for place in component-base/version client-go/pkg/version; do
    flags+=" -X $vendored/$place.gitVersion=v$version -X $vendored/$place.gitTreeState=archive"
    flags+=" -X $vendored/$place.gitMajor=1 -X $vendored/$place.gitMinor=20"
  done
  mkdir -p "$work/made/bin"
  logged go build -trimpath -ldflags "$flags" -o "$work/made/bin/" ./cmd/kube-{apiserver,controller-manager,scheduler} \
    ./cmd/kubelet
  logged go build -trimpath -ldflags '-s -w' -o "$work/made/bin/pause" "$here/pause.go"
}

gather() {
  cp "$work"/root/usr/bin/{containerd,containerd-shim-runc-v2,ctr,etcd} "$work/root/usr/sbin/runc" "$work/made/bin"
  cp -r "$work/root/usr/lib/cni" "$work/made/cni"
}

mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
[[ ! -e $folder ]] || exit 0
[[ $(type -P apt-get dpkg-deb git | wc -l) == 3 && $(dpkg --print-architecture) == amd64 ]] || cannot "not such a machine"
renice -n 19 $$ >/dev/null
rm -rf "$work"
source=$work/gopath/src/k8s.io/kubernetes
say "building Kubernetes $version, about five minutes; log: $log"
: >"$log"
download
unpack
go_environment
generate_openapi
compile
gather
mv "$work/made" "$folder"
cd /
rm -rf "$work"
say "built in $SECONDS s"
