#!/usr/bin/env bash
# Make madengine-test-base:latest, the image that the tests build FROM, if it is not there yet:
# this Debian machine's own installed packages, packed without network.
set -euo pipefail
export LC_ALL=C

image=madengine-test-base:latest
packages=(base-files base-passwd bash coreutils dash debianutils diffutils findutils git grep gzip
  hostname libc-bin mawk procps python3 sed tar util-linux)
unowned=(/etc/nsswitch.conf /etc/alternatives/{awk,which} /usr/bin/{awk,which}) # made at install

cannot() {
  echo "base-image.sh: no image $image, and it cannot be packed here; needed: $*" >&2
  exit 3
}

installed() {
  dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort -u
}

install_missing() {
  local missing
  mapfile -t missing < <(printf '%s\n' "${packages[@]}" | sort | comm -13 <(installed) -)
  ((${#missing[@]})) || return 0
  ((EUID == 0)) || cannot "the Debian packages ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update >&2
  apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >&2
}

with_dependencies() {
  apt-cache depends --recurse --installed --important "${packages[@]}" |
    sed -nE 's/^([a-z0-9][^: ]*).*/\1/p' | sort -u | comm -12 - <(installed)
}

# Every path of theirs that is here, with /bin, /lib and so on named by what those links stand for.
owned_paths() {
  {
    with_dependencies | xargs dpkg-query -L
    find /usr/lib/python3.* -name '*.pyc' # half a second for each container that runs python
    printf '%s\n' "${unowned[@]}"
  } |
    sed -E 's#^/(bin|sbin|lib|lib32|lib64|libx32)/#/usr/\1/#' | sort -u |
    grep -Ev '^/\.$|^/usr/share/(bug|doc|info|lintian|locale|man)/' |
    while read -r path; do
      if [[ -e $path || -L $path ]]; then echo "${path#/}"; fi
    done
}

# Debian's pristine passwd and group stand in for this machine's. What only root may read is left out.
pack() {
  owned_paths | tar --create --directory / --no-recursion --files-from - --ignore-failed-read \
    --transform 's#^usr/share/base-passwd/\(passwd\|group\).master$#etc/\1#'
}

! docker image inspect "$image" >/dev/null 2>&1 || exit 0
[[ $(type -P dpkg-query apt-cache | wc -l) == 2 ]] || cannot "a Debian machine, or an image of that name"
install_missing
pack | docker import --change 'CMD ["bash"]' --change 'ENV LANG=C.UTF-8' - "$image" >/dev/null
