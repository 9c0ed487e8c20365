#!/bin/bash
# Proves that an image needs nothing on its host: starts it where there is no file but a static busybox, no libc of any
# kind, as root and as another user. scripts/portable.sh [IMAGE]. Needs root, to make that host.
set -euo pipefail
cd "$(dirname "$0")/.."

image=${1:-target/dist/demo.flatimage}
((EUID == 0)) || { echo "portable: making a host of busybox alone needs root" >&2; exit 1; }
host=$(mktemp -d)
trap 'rm -rf "$host"' EXIT
chmod 755 "$host"
scripts/busybox-tree.sh "$host"
printf 'tester:x:63999:63999::/home:/bin/sh\n' >>"$host/etc/passwd"
printf 'tester:x:63999:\n' >>"$host/etc/group"
chmod 1777 "$host/tmp"
mkdir "$host/app"
cp "$image" "$host/app/app"
chown -R 63999:63999 "$host/app"

# A user namespace cannot be made below chroot(2), so the busybox host becomes the root of a mount namespace.
# shellcheck disable=SC2016
unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
    host=$1
    mount --bind "$host" "$host"
    mount --rbind /dev "$host/dev"
    mount -t proc proc "$host/proc"
    cd "$host"
    mkdir -p old
    pivot_root . old
    exec /bin/sh -euc "
        cd /
        umount -l /old
        test ! -e /lib && test ! -e /lib64
        cd /app
        HOME=/home su -s /bin/sh tester -c \"./app fim-exec echo works for a user without libc on the host\"
        rm -rf .app.data
        HOME=/root ./app fim-exec echo works for root without libc on the host
    "' bash "$host"
