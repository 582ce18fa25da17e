#!/bin/sh
# Installs what the containers' tests need: Docker, a registry, and both generations of Compose.
set -eu
here=$(dirname "$0")

"$here/../set-up.sh" nginx curl ip strace unshare script dockerd docker-registry busybox docker-compose

# Debian 12 has the first generation; the second comes from its next release, as one program that is laid aside.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/cutover-e2e"
for plug_in in /usr/libexec/docker/cli-plugins /usr/lib/docker/cli-plugins "$cache"; do
    [ ! -x "$plug_in/docker-compose" ] || exit 0
done
echo "set-up: fetching docker compose v2" >&2
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if apt-cache show docker-compose-v2 >/dev/null 2>&1; then
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker-compose-v2 >/dev/null
    exit 0
fi
# Another release's packages, kept apart from this machine's.
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir -p "$place/lists/partial" "$place/cache/archives/partial"
mirror=$(sed -n -e 's/^URIs: *//p' -e 's/^deb \(\[[^]]*\] \)\{0,1\}\(http[^ ]*\) .*/\2/p' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:?no Debian mirror is configured: install docker compose v2 by hand} trixie main" >"$place/sources.list"
apt() {
    apt-get -qq -o "Dir::Etc::sourcelist=$place/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$place/lists" \
        -o "Dir::Cache=$place/cache" -o APT::Sandbox::User=root "$@"
}
cd "$place"
apt update
apt download docker-compose
dpkg-deb -x docker-compose_*.deb "$place/tree"
mkdir -p "$cache"
mv "$place/tree/usr/libexec/docker/cli-plugins/docker-compose" "$cache/docker-compose"
