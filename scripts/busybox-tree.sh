#!/bin/bash
# Makes a root tree of a few hundred KiB that holds nothing but a static busybox: scripts/busybox-tree.sh DIRECTORY
set -euo pipefail

tree=$1
busybox=$(command -v busybox) || { echo "busybox-tree: no busybox; run scripts/install-deps.sh demo" >&2; exit 1; }
mkdir -p "$tree"/{bin,dev,etc,home,proc,root,run,sys,tmp,usr/bin,var}
ln -sfn ../bin "$tree/usr/sbin"
ln -sfn bin "$tree/sbin"
cp "$busybox" "$tree/bin/busybox"
for applet in $(busybox --list); do
    [[ $applet == busybox ]] || ln -sf busybox "$tree/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$tree/etc/passwd"
printf 'root:x:0:\n' >"$tree/etc/group"
printf 'NAME="busybox demo"\nID=busybox\n' >"$tree/etc/os-release"
