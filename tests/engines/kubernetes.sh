#!/usr/bin/env bash
# A real Kubernetes cluster for the tests: etcd, the control plane and two nodes, each with its own network, processes
# and hostname, a kubelet and a containerd, on this machine's filesystem. Programs are built from Debian's source once.
#   kubernetes.sh build                 build what is not built yet; `ensure` does it too
#   kubernetes.sh ensure                reuse a live cluster, mend a hurt one, else build and start one
#   kubernetes.sh status                one line; exit 0 if the cluster is whole
#   kubernetes.sh stop                  end what `ensure` started, and nothing else
#   kubernetes.sh env                   what a client needs in its environment, for `eval`
#   kubernetes.sh load IMAGE            bring an image from Docker to the nodes, unless they have it
#   kubernetes.sh mirror HOST:PORT URL  have the nodes find a registry of that name elsewhere
#   kubernetes.sh fake-nodes COUNT      have that many more nodes that only pretend; 0 removes them
#   kubernetes.sh stop-kubelet|start-kubelet N    its pods go on; start waits until it serves
#   kubernetes.sh kill-node|start-node N          cut its power; switch it on again and wait until it serves
#   kubernetes.sh unplug-node|plug-node N         its network cable
#   kubernetes.sh kill-apiserver|restart-apiserver
# Exit status 3: this machine or user cannot have one; the message names what is needed.
set -euo pipefail
export LC_ALL=C
umask 022
PATH=$PATH:/usr/sbin:/sbin

self=$(realpath "${BASH_SOURCE[0]}")
parts=$(dirname "$self")/kubeparts
nodes=2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pytest-madengine/engines
state=$(realpath -m "${MADENGINE_ENGINES_DIR:-$cache}/kubernetes")
built=$cache/kubernetes-built-1.20.2-$(cat "$parts"/{build.sh,pause.go,*.patch} | cksum | cut -d' ' -f1)
run=$state/run
etc=$state/etc
daemon_path=$built/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
packages=(iproute2 libseccomp2 openssl python3 util-linux)
programs=(ip nsenter openssl /usr/bin/python3 unshare)
base_image=madengine-test-base:latest
as_ours=(env -i PATH="$daemon_path" HOME=/root LANG=C.UTF-8 MADENGINE_KUBERNETES="$state" PYTHONDONTWRITEBYTECODE=1
  PYTHONPATH="$(realpath "$parts/../../..")" MADENGINE_PRETENDED="cpu=96,memory=512Gi,amd.com/gpu=8"
  MADENGINE_ENGINES_DIR="$(dirname "$state")" XDG_CACHE_HOME="${cache%/*/*}")

say() { echo "kubernetes.sh: $*" >&2; }

cannot() {
  say "$*"
  say "needed: root on Debian 12 or newer, allowed to make network, process and mount namespaces"
  exit 3
}

within() { # within SECONDS COMMAND...: until it succeeds
  local deadline=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# Daemons

pid_of() { cat "$run/$1.pid" 2>/dev/null || echo none; }

# True for a live process of this cluster: pids are reused, and a zombie would still answer kill -0.
is_ours() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) && [[ ${stat##*) } != Z* ]] &&
    grep -qszxF "MADENGINE_KUBERNETES=$state" "/proc/$1/environ"
}

lives() { is_ours "$(pid_of "$1")"; }

is_gone() { ! is_ours "$1"; }

# 8 and 9 are the locks of `ensure`, which must not outlive it in a daemon.
start() { # start NAME COMMAND...
  (
    cd /
    exec setsid "${as_ours[@]}" "${@:2}"
  ) >>"$state/log/$1.out" 2>&1 </dev/null 8>&- 9>&- &
  echo $! >"$run/$1.pid"
}

end() { # end NAME SIGNAL
  local pid
  pid=$(pid_of "$1")
  if is_ours "$pid"; then
    kill -"$2" "$pid"
    within 30 is_gone "$pid" || {
      say "$1 ($pid) is still running after 30 s"
      exit 1
    }
  fi
  rm -f "$run/$1.pid"
}

failed() { # failed NAME: it did not come up
  say "$1 did not come up; the end of its log:"
  tail -n 20 "$state/log/$1".* >&2
  exit 1
}

python() { "${as_ours[@]}" /usr/bin/python3 -m "tests.engines.kubeparts.$1" "${@:2}"; }

# Network: the switch of a private subnet has a namespace of its own, where Docker's rules do not reach. The control
# plane lives there (.253), so its ports are nobody else's; this machine is .254. Each node has a subnet for its pods.

subnet() { cat "$run/subnet" 2>/dev/null || echo none; }

name() { echo "madkube$(subnet)"; }

address() { echo "10.$(subnet).0.$1"; }

pods_of() { echo "10.$(subnet).$1.0/24"; }

services() { echo "10.$(subnet).96.0/24"; }

has_network() { [[ -e /run/netns/$(name) && -e /sys/class/net/$(name) ]]; }

is_free() { # to make a namespace of that name is what claims the subnet
  ! ip -4 -o address show | grep -q " 10\.$1\." && ! ip -4 route show | grep -qE "(^| )10\.$1\." &&
    ip netns add "madkube$1" 2>/dev/null
}

make_network() {
  local free node
  remove_network
  for free in {101..123} none; do
    if [[ $free == none ]]; then cannot "no network namespace or no subnet 10.101-123.0.0/16 to be had"; fi
    ! is_free "$free" || break
  done
  echo "$free" >"$run/subnet"
  ip -n "$(name)" link add switch type bridge
  ip -n "$(name)" address add "$(address 253)/24" dev switch
  ip -n "$(name)" address add "$(address 200)/24" dev switch # the fake nodes
  ip -n "$(name)" link set switch up
  ip -n "$(name)" address add "10.$(subnet).96.1/32" dev lo # the service `kubernetes`
  ip -n "$(name)" link set lo up
  ip link add "$(name)" type veth peer name machine netns "$(name)"
  ip -n "$(name)" link set machine master switch up
  ip address add "$(address 254)/24" dev "$(name)"
  ip link set "$(name)" up
  for ((node = 1; node <= nodes; node++)); do
    ip -n "$(name)" route add "$(pods_of "$node")" via "$(address "$node")"
    ip route add "$(pods_of "$node")" via "$(address "$node")"
  done
}

remove_network() {
  ip link delete "$(name)" 2>/dev/null || true
  ip netns delete "$(name)" 2>/dev/null || true
}

# Configuration

openssl_quiet() { openssl "$@" 2>>"$state/log/openssl.out"; }

certificate() { # certificate NAME SUBJECT EXTENSION
  openssl_quiet req -new "${new_key[@]}" -subj "$2" -keyout "$etc/$1.key" -out "$etc/$1.csr"
  openssl_quiet x509 -req -days 365 -in "$etc/$1.csr" -CA "$etc/ca.crt" -CAkey "$etc/ca.key" -CAcreateserial \
    -extfile <(echo "$3") -out "$etc/$1.crt"
}

make_keys() {
  local new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  local names
  names="IP:127.0.0.1,IP:$(address 253),IP:$(address 200),IP:10.$(subnet).96.1"
  openssl_quiet req -x509 "${new_key[@]}" -days 365 -subj /CN=tests -keyout "$etc/ca.key" -out "$etc/ca.crt"
  certificate server /CN=server "subjectAltName=$names,DNS:kubernetes.default.svc"
  certificate admin /O=system:masters/CN=admin 'extendedKeyUsage=clientAuth'
  openssl_quiet genrsa -out "$etc/accounts.key" 2048
  openssl_quiet rsa -in "$etc/accounts.key" -pubout -out "$etc/accounts.pub"
}

kubeconfig() {
  cat <<CONF
apiVersion: v1
kind: Config
current-context: tests
contexts: [{name: tests, context: {cluster: tests, user: admin, namespace: default}}]
clusters:
- {name: tests, cluster: {server: "https://$(address 253)", certificate-authority-data: $(base64 -w0 "$etc/ca.crt")}}
users:
- name: admin
  user:
    client-certificate-data: $(base64 -w0 "$etc/admin.crt")
    client-key-data: $(base64 -w0 "$etc/admin.key")
CONF
}

containerd_toml() { # containerd_toml NODE
  cat <<CONF
version = 2
root = "$state/node$1/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/tests/pause:1"
  restrict_oom_score_adj = true # where CAP_SYS_RESOURCE is missing, it cannot be lowered
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$built/cni"
    conf_dir = "$etc/node$1.cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$state/registries"
CONF
}

cni_json() { # cni_json NODE
  cat <<CONF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{
  "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "/run/pods", "ranges": [[{"subnet": "$(pods_of "$1")"}]],
           "routes": [{"dst": "0.0.0.0/0"}]}}]}
CONF
}

# A pod of a dead node is given up after 15 + 4 s; the stock values make that six minutes.
kubelet_yaml() { # kubelet_yaml NODE
  cat <<CONF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $etc/ca.crt}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
cgroupRoot: /$(name)-node$1
clusterDNS: [$(address 253)]
clusterDomain: cluster.local
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
failSwapOn: false
imageGCHighThresholdPercent: 100
makeIPTablesUtilChains: false
nodeStatusUpdateFrequency: 3s
resolvConf: $etc/resolv.conf
volumePluginDir: $state/node$1/plugins
CONF
}

hosts() {
  cat /etc/hosts
  local node
  for ((node = 1; node <= nodes; node++)); do echo "$(address "$node") node$node"; done
}

settings() {
  echo "$(subnet) $built $(cat "$self" "$parts"/*.py | cksum)"
}

# A new cluster from nothing: what another version of this script made cannot be told apart.
configure() {
  local node
  rm -rf "${state:?}"/{etcd,etc,node*,registries,volumes}
  mkdir -p "$etc" "$state"/{registries,volumes}
  (umask 077 && make_keys && kubeconfig >"$etc/kubeconfig")
  echo "https://$(address 253):443" >"$etc/server"
  : >"$etc/resolv.conf"
  hosts >"$etc/hosts"
  for ((node = 1; node <= nodes; node++)); do
    mkdir -p "$etc/node$node.cni" "$state/node$node"/{log,cni,kubelet,sysctl}
    containerd_toml "$node" >"$etc/node$node.toml"
    cni_json "$node" >"$etc/node$node.cni/pods.conflist"
    kubelet_yaml "$node" >"$etc/node$node.yaml"
  done
  settings >"$etc/settings"
}

is_current() { has_network && settings | cmp -s - "$etc/settings"; }

# The parts, from the bottom up

# Before the tests, which would have nodes seem dead that only have no processor.
start_in_control() { start "$1" nsenter --net="/run/netns/$(name)" nice -n -10 "${@:2}"; }

start_etcd() {
  start_in_control etcd etcd --data-dir "$state/etcd" --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
}

start_apiserver() {
  start_in_control apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=443 \
    --bind-address=0.0.0.0 --advertise-address="$(address 253)" --service-cluster-ip-range="$(services)" \
    --tls-cert-file="$etc/server.crt" --tls-private-key-file="$etc/server.key" --client-ca-file="$etc/ca.crt" \
    --kubelet-client-certificate="$etc/admin.crt" --kubelet-client-key="$etc/admin.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$etc/accounts.pub" \
    --service-account-signing-key-file="$etc/accounts.key" --authorization-mode=RBAC --allow-privileged=true \
    --kubelet-preferred-address-types=InternalIP --feature-gates=TTLAfterFinished=true \
    --storage-media-type=application/json `# its protobuf does not know the fields that our patch adds` \
    --default-not-ready-toleration-seconds=4 --default-unreachable-toleration-seconds=4
}

apiserver_answers() { python ready "$etc"; }

start_controllers() {
  start_in_control controllers kube-controller-manager --kubeconfig="$etc/kubeconfig" --bind-address=127.0.0.1 --port=0 \
    --leader-elect=false --service-account-private-key-file="$etc/accounts.key" --root-ca-file="$etc/ca.crt" \
    --feature-gates=TTLAfterFinished=true --kube-api-content-type=application/json \
    --kube-api-qps=200 --kube-api-burst=400 --node-monitor-period=2s --node-monitor-grace-period=15s \
    --node-eviction-rate=100 --secondary-node-eviction-rate=100 --pvclaimbinder-sync-period=1s
}

start_scheduler() {
  start_in_control scheduler kube-scheduler --kubeconfig="$etc/kubeconfig" --bind-address=127.0.0.1 --port=0 \
    --leader-elect=false --kube-api-qps=200 --kube-api-burst=400
}

start_assistant() {
  start_in_control assistant /usr/bin/python3 -m tests.engines.kubeparts.assistant "$etc" "$(address 253)" "$state/volumes"
}

power_on() {
  end "node$1.init" KILL
  start "node$1" unshare --net --pid --uts --mount --propagation slave --fork "$self" be-node "$1"
}

# The first process of a node, which its others are children of.
be_node() {
  local pid
  read -r pid _ </proc/self/stat # as this machine knows it: /proc is still this machine's
  echo "$pid" >"$run/node$1.init.pid"
  hostname "node$1"
  mount -t proc proc /proc
  connect "$1"
  make_cgroups "$1"
  furnish "$1"
  containerd -c "$etc/node$1.toml" &
  within 30 ctr -a /run/containerd/containerd.sock version
  provide_pause
  "$self" be-kubelet "$1" >>"$state/log/node$1.kubelet" 2>&1 &
  while :; do wait -n || sleep 1; done # reaps orphans
}

connect() {
  local other
  ip -n "$(name)" link delete "port$1" 2>/dev/null || true # of its life before
  ip link set lo up
  ip link add eth0 type veth peer name "port$1" netns "$(name)"
  ip -n "$(name)" link set "port$1" master switch up
  ip address add "$(address "$1")/24" dev eth0
  ip link set eth0 up
  ip route add "$(services)" via "$(address 253)"
  for ((other = 1; other <= nodes; other++)); do
    ((other == $1)) || ip route add "$(pods_of "$other")" via "$(address "$other")"
  done
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

# The kubelet measures what is below; a group of version 1 must first be told which processors it may use.
make_cgroups() {
  local above own setting
  for above in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do
    [[ -e $above/cgroup.procs && ! -L ${above%/} ]] || continue
    own=$above/$(name)-node$1
    mkdir -p "$own"
    for setting in cpuset.cpus cpuset.mems; do
      [[ ! -e $above/cpuset.effective_mems || $(cat "$own/$setting") ]] || cat "$above/$setting" >"$own/$setting"
    done
  done
}

# What is the node's alone. The kubelet would change settings of this machine's kernel that it finds different.
furnish() {
  local own=$state/node$1 setting
  mount --bind "$etc/hosts" /etc/hosts
  mount -t tmpfs tmpfs /run
  mount --bind "$own/log" /var/log
  mkdir -p /var/lib/cni
  mount --bind "$own/cni" /var/lib/cni
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    echo "${setting#*=}" >"$own/sysctl/$(basename "${setting%=*}")"
    mount --bind "$own/sysctl/$(basename "${setting%=*}")" "/proc/sys/${setting%=*}"
  done
}

provide_pause() {
  python pauseimage "$built/bin/pause" /run/pause.tar
  ctr -a /run/containerd/containerd.sock -n k8s.io images import /run/pause.tar
}

be_kubelet() {
  echo $$ >"$state/node$1/kubelet.pid" # as its node knows it
  exec nice -n -10 kubelet --config="$etc/node$1.yaml" --kubeconfig="$etc/kubeconfig" --root-dir="$state/node$1/kubelet" \
    --cert-dir="$state/node$1/kubelet/pki" --container-runtime=remote --hostname-override="node$1" \
    --container-runtime-endpoint=unix:///run/containerd/containerd.sock --node-ip="$(address "$1")"
}

in_node() { # in_node N COMMAND...
  "${as_ours[@]}" nsenter --target "$(pid_of "node$1.init")" --mount --uts --net --pid "${@:2}"
}

kubelet_lives() { in_node "$1" grep -qx kubelet "/proc/$(cat "$state/node$1/kubelet.pid")/comm" 2>/dev/null; }

kubelet_answers() { kubelet_lives "$1" && timeout 1 bash -c ": </dev/tcp/$(address "$1")/10250"; }

kubelet_is_gone() { ! kubelet_lives "$1"; }

are_ready() { python ready "$etc" "$@"; } # are_ready NODE...

node_names() { seq -f 'node%g' $nodes; }

await_nodes() { # await_nodes NODE...
  within 60 are_ready "$@" || failed "${1}"
}

mend() { # the rest of `ensure`, when something is missing
  local node names
  ((EUID == 0)) || cannot "no usable cluster, and this user may not make one"
  install_missing
  build
  mkdir -p "$state"/{log,run}
  if ! is_current; then
    end_all
    make_network
    configure
  fi
  lives etcd || start_etcd
  lives apiserver || start_apiserver
  lives controllers || start_controllers
  lives scheduler || start_scheduler
  lives assistant || start_assistant
  for ((node = 1; node <= nodes; node++)); do
    lives "node$node" || power_on "$node"
    plug_node "$node"
  done
  for ((node = 1; node <= nodes; node++)); do within 15 kubelet_lives "$node" || begin_kubelet "$node"; done
  mapfile -t names < <(node_names)
  await_nodes "${names[@]}"
}

is_whole() {
  local part names needed=(etcd apiserver controllers scheduler assistant)
  mapfile -t names < <(node_names)
  for part in "${needed[@]}" "${names[@]}"; do lives "$part" || return 1; done
  for part in "${names[@]#node}"; do kubelet_lives "$part" || return 1; done
  is_current && are_ready "${names[@]}" 2>/dev/null
}

install_missing() {
  local wanted=0
  [[ $(type -P "${programs[@]}" | wc -l) == "${#programs[@]}" && -e $(echo /usr/lib/*/libseccomp.so.2) ]] || wanted=1
  ((wanted)) || return 0
  # shellcheck source=/dev/null
  (. /etc/os-release && [[ $ID == debian ]] && ((${VERSION_ID:-99} >= 12))) 2>/dev/null || cannot "not Debian 12 or newer"
  say "installing ${packages[*]}"
  apt_get update || say "apt-get update met errors; going on"
  apt_get install -y --no-install-recommends "${packages[@]}" || cannot "apt-get cannot install them"
}

apt_get() {
  mkdir -p "$state"
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$state/apt.log" 2>&1 || {
    tail -n 20 "$state/apt.log" >&2
    return 1
  }
}

# Images

docker_id() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null; }

has_image() { grep -qsxF "$2" "$state/node$1/images"; } # has_image N 'NAME ID'

import() { # import N FILE 'NAME ID'
  in_node "$1" ctr -a /run/containerd/containerd.sock -n k8s.io images import "$2" >>"$state/log/images.out" 2>&1 8>&- 9>&-
  echo "$3" >>"$state/node$1/images"
}

load() { # load IMAGE
  local id node pids=()
  id=$(docker_id "$1") || {
    say "docker knows no image $1"
    exit 1
  }
  for ((node = 1; node <= nodes; node++)); do has_image "$node" "$1 $id" || break; done
  ((node <= nodes)) || return 0
  work=$(mktemp -d "$state/load.XXXXXX") # global, for the trap
  trap 'rm -rf "$work"' EXIT
  docker save --output "$work/image.tar" "$1"
  for ((node = 1; node <= nodes; node++)); do
    import "$node" "$work/image.tar" "$1 $id" &
    pids+=($!)
  done
  wait "${pids[0]}" && wait "${pids[1]}"
  rm -rf "$work"
}

mirror() { # mirror HOST:PORT URL
  mkdir -p "$state/registries/$1"
  printf '[host."%s"]\n' "$2" >"$state/registries/$1/hosts.toml"
}

# What is asked for on the command line

build() {
  ((EUID == 0)) || cannot "this user could not start what is built"
  "$parts/build.sh" "$built" 8>&- 9>&-
}

ensure() {
  mkdir -p "$run"
  exec 8>"$state/tests.lock" 9>"$state/lock"
  [[ ${MADENGINE_ALONE:-} ]] || flock --shared 8 # a test that has the cluster alone may have broken it on purpose
  flock 9
  is_whole || mend
  ! docker_id $base_image >/dev/null || load $base_image
  status
}

status() {
  is_whole || {
    echo "kubernetes: no whole cluster in $state"
    return 1
  }
  echo "kubernetes: $("$built/bin/kubelet" --version), $nodes nodes, KUBECONFIG=$etc/kubeconfig"
}

end_all() {
  local node
  end fakenodes KILL
  for ((node = 1; node <= nodes; node++)); do kill_node "$node"; done
  end assistant KILL
  end scheduler KILL
  end controllers KILL
  end apiserver KILL
  end etcd KILL
}

remove_cgroups() { find /sys/fs/cgroup -depth -type d -path "*/$(name)-node*" -exec rmdir {} + 2>/dev/null || true; }

stop() {
  [[ -d $run ]] || return 0
  exec 9>"$state/lock"
  flock 9
  end_all
  remove_cgroups
  remove_network
  rm -rf "${state:?}"/{etc,etcd,node*,registries,run,volumes}
}

client_environment() { echo "export KUBECONFIG=$(printf %q "$etc/kubeconfig")"; }

kill_node() {
  end "node$1.init" KILL
  end "node$1" KILL # waits for the other
}

start_node() {
  lives "node$1" || power_on "$1"
  await_nodes "node$1"
}

stop_kubelet() {
  in_node "$1" kill -KILL "$(cat "$state/node$1/kubelet.pid")"
  within 10 kubelet_is_gone "$1"
}

begin_kubelet() { in_node "$1" setsid "$self" be-kubelet "$1" >>"$state/log/node$1.kubelet" 2>&1 </dev/null 8>&- 9>&- & }

start_kubelet() {
  kubelet_lives "$1" || begin_kubelet "$1"
  within 30 kubelet_answers "$1" || failed "node$1"
  await_nodes "node$1"
}

cable() { ip -n "$(name)" link set "port$1" "$2"; }

unplug_node() { cable "$1" down; }

plug_node() { within 5 cable "$1" up; }

apiserver_is_deaf() { ! timeout 1 bash -c ": </dev/tcp/$(address 253)/443"; }

kill_apiserver() {
  end apiserver KILL
  within 10 apiserver_is_deaf # a process loses its sockets last
}

restart_apiserver() {
  kill_apiserver
  start_apiserver
  within 60 apiserver_answers || failed apiserver
}

fake_nodes() { # fake_nodes COUNT
  local names
  end fakenodes KILL
  python fakenodes "$etc" "$(address 200)" 0
  [[ $1 != 0 ]] || return 0
  start_in_control fakenodes /usr/bin/python3 -m tests.engines.kubeparts.fakenodes "$etc" "$(address 200)" "$1"
  mapfile -t names < <(seq -f 'fake%g' "$1")
  await_nodes "${names[@]}"
}

usage() {
  sed -n '/^#   /s/^#   //p' "$self" >&2
  exit 2
}

case "$#:${1:-}" in
  1:build | 1:ensure | 1:status | 1:stop) "$1" ;;
  1:env) client_environment ;;
  1:kill-apiserver | 1:restart-apiserver) "${1/-/_}" ;;
  2:load) load "$2" ;;
  2:fake-nodes) fake_nodes "$2" ;;
  3:mirror) mirror "$2" "$3" ;;
  2:be-node | 2:be-kubelet | 2:stop-kubelet | 2:start-kubelet | 2:kill-node | 2:start-node | 2:unplug-node | 2:plug-node)
    [[ $2 == [1-"$nodes"] ]] || usage
    "${1/-/_}" "$2"
    ;;
  *) usage ;;
esac
