#!/bin/sh
# Installs what the named programs come from, where they are missing: tests/set-up.sh nginx git curl node npm python3
# With apt or dnf, through sudo when not root; elsewhere it says what is missing. Rust is never installed, only checked.
set -eu

fail() {
    echo "set-up: $1" >&2
    exit 2
}

# System directories that an ordinary user's PATH lacks.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

if ! command -v cargo >/dev/null 2>&1; then
    fail "cannot find cargo: install Rust 1.88 or later (rustup installs it), then run this again"
fi
minor=$(rustc --version | cut -d. -f2)
[ "$minor" -ge 88 ] || fail "$(rustc --version) is too old: install Rust 1.88 or later (rustup update), then run this again"

package_of() {
    case $1 in
        cc) echo gcc ;;
        c++) command -v dnf >/dev/null 2>&1 && echo gcc-c++ || echo g++ ;;
        node) echo nodejs ;;
        systemd-nspawn) echo systemd-container ;;
        mkfs.ext4) echo e2fsprogs ;;
        dpkg-deb) echo dpkg ;;
        dockerd) echo docker.io ;;
        busybox) echo busybox-static ;;
        unshare) echo util-linux ;;
        script) echo bsdutils ;;
        php) echo php-cli ;;
        go) echo golang-go ;;
        javac) command -v dnf >/dev/null 2>&1 && echo java-devel || echo default-jdk-headless ;;
        ip) command -v dnf >/dev/null 2>&1 && echo iproute || echo iproute2 ;;
        *) echo "$1" ;;
    esac
}

is_there() {
    case $1 in
        # A module of the C library's, which only Debian and its like have packaged.
        libnss-extrausers) ! command -v apt-get >/dev/null 2>&1 || ls /usr/lib/*/libnss_extrausers.so.2 >/dev/null 2>&1 ;;
        # Elsewhere it is a part of Python itself.
        python3-venv) ! command -v apt-get >/dev/null 2>&1 || /usr/bin/python3 -c 'import ensurepip' 2>/dev/null ;;
        # Libraries.
        ruby-sinatra) ls /usr/share/rubygems-integration/all/specifications/sinatra-[0-9]* >/dev/null 2>&1 ;;
        lib*-java) dpkg-query --show "$1" >/dev/null 2>&1 ;;
        # Debian has its version in the name.
        php-fpm) ls /usr/sbin/php-fpm* >/dev/null 2>&1 ;;
        # In the PATH that apps get, which is not the caller's.
        *) (PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin && command -v "$1" >/dev/null 2>&1) ;;
    esac
}

missing=
for program in cc "$@"; do
    is_there "$program" || missing="$missing $(package_of "$program")"
done
# Static linking needs the C library's archive.
archive=$(cc -print-file-name=libc.a 2>/dev/null || echo libc.a)
[ -f "$archive" ] || missing="$missing $(command -v dnf >/dev/null 2>&1 && echo glibc-static || echo libc6-dev)"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    fail "cannot find$missing: install them as root, then run this again"
fi
echo "set-up: installing$missing" >&2
if command -v apt-get >/dev/null 2>&1; then
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
elif command -v dnf >/dev/null 2>&1; then
    # shellcheck disable=SC2086 # a list of packages
    $as_root dnf install -y -q $missing >/dev/null
else
    fail "cannot find$missing, nor apt-get or dnf to install them: install them, then run this again"
fi
