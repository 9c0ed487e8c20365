#!/bin/bash
# Builds fim, packs a small root file system into target/dist/demo.flatimage and shows what can be done with it.
#   scripts/demo.sh            a static busybox (needs no root beyond installing packages)
#   scripts/demo.sh debian     a real Debian, made by debootstrap (as root)
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-busybox}
scripts/install-deps.sh build demo
cargo build --release --locked --quiet

mkdir -p target/dist target/demo target/bench-cache
case $what in
busybox) tree=target/demo/busybox && scripts/busybox-tree.sh "$tree" ;;
# The tree that scripts/bench.sh measures, so that it is made once.
debian) tree=target/bench-cache/debian && scripts/debian-tree.sh "$tree" ;;
*) echo "demo: no such tree: $what; busybox or debian" >&2; exit 2 ;;
esac

image=target/dist/demo.flatimage
# Data of an earlier demonstration would show.
rm -rf "$image" target/dist/.demo.flatimage.data

if ((EUID == 0)) && [[ -c /dev/fuse && $(stat -c %a /dev/fuse) != *6 ]]; then
    echo "demo: /dev/fuse is closed to users on this host; opening it: chmod 666 /dev/fuse"
    chmod 666 /dev/fuse
fi

# Shows a command line as one would type it, and runs it.
try() {
    printf '\n$ %s\n' "$1"
    bash -c "$1"
}

echo "# Pack a root file system into one executable file:"
try "target/release/fim build $tree -o $image --level 3"
cd target/dist

echo
echo "# Run programs in it as yourself, or as root of the image:"
try "./demo.flatimage fim-exec id"
try "./demo.flatimage fim-root sh -c 'id -u; ls /'"
try "echo a pipe | ./demo.flatimage fim-exec tr a-z A-Z"
try "./demo.flatimage fim-exec sh -c 'exit 7'; echo \"exit code \$?\""

echo
echo "# It sees nothing of the host: no process, no network, no file:"
try "./demo.flatimage fim-exec sh -c 'cat /proc/[0-9]*/comm'"
try "./demo.flatimage fim-exec cat /proc/net/dev"

echo
echo "# What it writes stays, beside the image:"
try "./demo.flatimage fim-root sh -c 'echo kept > /etc/note'"
try "./demo.flatimage fim-exec cat /etc/note"
try "ls -A"

echo
echo "# Two instances at once share one writable root:"
try "./demo.flatimage fim-exec mkfifo /meet
./demo.flatimage fim-exec cat /meet &
./demo.flatimage fim-exec sh -c 'echo hello from the other instance > /meet'
wait"

echo
echo "# The file tells what it holds, and whether it is whole:"
try "./demo.flatimage fim-inspect"
try "./demo.flatimage fim-verify"

if ((EUID == 0)); then
    echo
    echo "# The same as a user without any privilege, from a directory of that user's:"
    user=63999
    place=$(mktemp -d)
    chown $user:$user "$place"
    ln demo.flatimage "$place/" 2>/dev/null || cp demo.flatimage "$place/"
    try "cd $place && setpriv --reuid=$user --regid=$user --clear-groups env -i PATH=\"\$PATH\" ./demo.flatimage fim-exec id"
    rm -rf "$place"
fi

# What shows that the demonstration was real: the image runs, keeps what was written, and has left nothing mounted.
[[ $(./demo.flatimage fim-exec cat /etc/note) == kept ]]
if grep -q "fuse.fim" /proc/self/mounts; then
    echo "demo: a mount was left on the host" >&2
    exit 1
fi
echo
echo "The image is $image."
