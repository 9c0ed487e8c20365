#!/bin/bash
# Measures fim and its peers in one run, turn by turn, and prints Markdown:
#   scripts/bench.sh [--quick] [start] [read] [exec] [pipe] [instances] [settings] [layers] [layouts]
#                    [write] [cold] [size] [memory] [build] [calls] [instructions] [ports] [content]
# As root, for the peers need it. --quick takes fewer turns: good for a look, not for a record; alone it takes start, read
# and memory, in less than a minute. A first run makes a Debian tree and packs it into target/bench-cache, which takes
# some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

((EUID == 0)) || { echo "bench: the peers mount and make containers, which takes root" >&2; exit 1; }
scripts/install-deps.sh build bench
cargo build --release --locked --quiet
fim=$PWD/target/release/fim
cache=$PWD/target/bench-cache
mkdir -p "$cache"
gcc -O2 -Wall -static -pthread -o "$cache/measure" scripts/bench/measure.c
gcc -O2 -Wall -static -o "$cache/network" scripts/bench/network.c
scripts/debian-tree.sh "$cache/debian"

quick='' sections=()
for word in "$@"; do
    if [[ $word == --quick ]]; then quick=$word; else sections+=("$word"); fi
done
if [[ $quick && ${#sections[@]} == 0 ]]; then sections=(start read memory); fi

# Whether this section is wanted: without any word, all are.
wanted() {
    ((${#sections[@]} == 0)) || [[ " ${sections[*]} " == *" $1 "* ]]
}

# One big file of what a system really holds, for random reads.
if wanted read && [[ ! -e $cache/big/big.bin ]]; then
    mkdir -p "$cache/big"
    find "$cache/debian" -xdev -type f -size +8k -print0 | sort -z | xargs -0 cat 2>/dev/null | head -c 256M >"$cache/big/part" || true
    mv "$cache/big/part" "$cache/big/big.bin"
fi

# The very same archive for all: packed by fim, cut out of the image for the peers. Packed again when the packer changes.
packer=$(cat runtime/src/pack/*.rs runtime/src/squashfs/write/*.rs | sha256sum | cut -c1-16)
archive() {
    local name=$1 level=$2 file=$cache/$1-$packer
    [[ -e $file.sqfs ]] || {
        rm -f "$cache/$name"-*
        "$fim" build "$cache/$name" -o "$cache/packing" --force --quiet --level "$level" >/dev/null
        "$fim" inspect --json "$cache/packing" | python3 -c '
import json, sys
layer = json.load(sys.stdin)["layers"][0]
with open(sys.argv[1], "rb") as image, open(sys.argv[2], "wb") as out:
    image.seek(layer["offset"])
    out.write(image.read(layer["size"]))' "$cache/packing" "$file.part"
        mv "$cache/packing" "$file.flatimage"
        mv "$file.part" "$file.sqfs"
    }
    # The program of today with the archive as it is.
    "$fim" build "$file.flatimage" -o "$cache/$name.flatimage" --force --quiet >/dev/null
    ln -sfn "$file.sqfs" "$cache/$name.sqfs"
}
archive debian 19
if wanted read; then archive big 3; fi

# The tree with git and a repository, for what is written.
if wanted write; then
    if [[ ! -e $cache/write ]]; then
        rm -rf "$cache/write.part"
        cp -a "$cache/debian" "$cache/write.part"
        (cd "$cache" && apt-get download --quiet git && dpkg -x git_*.deb write.part && rm git_*.deb)
        git clone --quiet --bare . "$cache/write.part/repository"
        mv "$cache/write.part" "$cache/write"
    fi
    archive write 3
fi

# crun and podman want a cgroup v2 hierarchy: in a mount namespace of the run there is one whatever the host has, and
# what a run might leave mounted ends with it.
# shellcheck disable=SC2016
exec unshare --mount --propagation private bash -c '
    umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 none /sys/fs/cgroup
    exec python3 scripts/bench/run.py "$@"' bench "$cache" ${quick:+"$quick"} "${sections[@]}"
