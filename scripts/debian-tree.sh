#!/bin/bash
# Makes a minimal Debian tree by debootstrap, once: scripts/debian-tree.sh DIRECTORY. Needs root.
set -euo pipefail

tree=$1
suite=${SUITE:-bookworm}
[[ ! -e $tree.complete ]] || exit 0
((EUID == 0)) || { echo "debian-tree: debootstrap needs root: sudo $0 $tree" >&2; exit 1; }
"$(dirname "$0")/install-deps.sh" test
mkdir -p "$tree"
log=$tree.log
if ! debootstrap --variant=minbase "$suite" "$tree" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "debian-tree: debootstrap of $suite into $tree failed; its whole log is $log" >&2
    exit 1
fi
# Packages and lists would only make the tree bigger.
rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
touch "$tree.complete"
