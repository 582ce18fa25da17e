#!/bin/sh
# Prints the disk that every machine with this release of Debian is a copy of, and makes it, once: tests/e2e/host.sh bookworm
set -eu
suite=$1
# Where others see what is mounted here, their namespaces keep it mounted, and the disk is not whole when it is copied.
[ "${2-}" = secluded ] || exec unshare --mount "$0" "$suite" secluded

# What a machine has from its first day. gcc is there for Rust's sake: once, cutover is built on it.
packages=systemd-sysv,dbus,libpam-systemd,sudo,nginx-light,git,nodejs,npm,curl,cron,procps,bash-completion,man-db,gcc,libc6-dev
# It takes up only what is written.
size=6G

cache="${XDG_CACHE_HOME:-$HOME/.cache}/cutover-e2e"
# Other packages are another disk.
disk="$cache/$suite-$(printf %s "$packages" | cksum | cut -d ' ' -f 1).ext4"
mkdir -p "$cache"
exec 9>"$cache/$suite.lock"
flock 9
if [ ! -e "$disk" ]; then
    echo "e2e: building a Debian $suite, once" >&2
    draft=$(mktemp -d "$cache/draft.XXXXXX")
    trap 'umount "$draft/mounted" 2>/dev/null || true; rm -rf --one-file-system "$draft"' EXIT
    mkdir "$draft/mounted"
    mmdebstrap --quiet --variant=minbase --include="$packages" "$suite" "$draft/tree.tar" >&2
    truncate --size="$size" "$draft/disk"
    mkfs.ext4 -q -F "$draft/disk"
    mount -o loop "$draft/disk" "$draft/mounted"
    tar -xpf "$draft/tree.tar" -C "$draft/mounted"
    umount "$draft/mounted"
    mv "$draft/disk" "$disk"
fi
echo "$disk"
