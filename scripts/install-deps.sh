#!/bin/bash
# Installs the Debian or Ubuntu packages that are missing for the named sets: scripts/install-deps.sh SET...
# Sets: build, demo, test, bench, ci. Says which packages it installs and why; silent when none is missing.
set -euo pipefail

# SET PACKAGE REASON
packages() {
    cat <<'TABLE'
build gcc             links the program and compiles the C libraries that come with crates
build libc6-dev       static C library
build libsquashfs-dev writes layers (static archive of libsquashfs)
build libclang-dev    bindgen of the squashfs-ng crate
demo busybox-static   the program that the demonstration image holds
test busybox-static   the program that small test images hold
test gcc              the probe that runs inside test images
test debootstrap      the real Debian tree that the tests pack and run
test squashfs-tools   mksquashfs makes what the reader must read, unsquashfs reads what the packer makes
test squashfuse       reads what the packer makes, too
test tar              GNU tar makes archives for the packer
test xz-utils         compressed archives for the packer
test zstd             compressed archives for the packer
test podman          makes container images that the builder packs, and containers that images run in
test crun            runs podman's containers
test perl-base        reads directories in ways that no shell does
test util-linux       setpriv, setsid, unshare, mount, prlimit
test curl             fetches images
test wget             fetches them where curl is missing
test uidmap           newuidmap and newgidmap map subordinate IDs
test apt              apt-get fetches the packages that the tests install in the Debian tree
test dpkg             dpkg-deb reads what stands in a package
test strace           makes single system calls of a writer fail
test python3          scripts/test.sh reads cargo's messages with it
test qemu-system-x86 another kernel: FAT and exFAT sticks, sticks pulled out, switches of the host
test dosfstools       FAT file systems for it
test exfatprogs       exFAT file systems for it
test e2fsprogs        ext4 file systems for it
test apparmor         its parser, for profiles that fim-doctor prints and for one that forbids mounts
test musl-tools       a program of another C library that asks for names
test dbus-daemon      the session bus of the host
test python3-dbus     a notification daemon for it
test python3-gi       its main loop
test xdg-dbus-proxy   the filter before the bus
test pulseaudio       the sound server of the host
test xvfb             the X display of the host
test x11-utils        looks for windows on it
test x11-apps         takes a picture of it
ci python3            licences and sources are checked with it
ci shellcheck         checks the scripts
ci binutils           readelf
bench gcc             the measuring program
bench debootstrap     the measured tree
bench squashfs-tools  the measured archive
bench squashfuse      a peer: FUSE server of a squashfs
bench fuse3           unmounts the peer
bench bubblewrap      a peer: sandbox
bench crun            a peer: container runtime
bench podman          a peer: container engine
bench slirp4netns     a peer: its network in user space
bench util-linux      unshare, mount
bench fuse-overlayfs  a peer: userspace overlay
bench unionfs-fuse    a peer: userspace union
bench git             clones a repository
bench python3         statistics
bench strace          counts the system calls of a start
bench linux-perf      counts the instructions of a start, where the machine can
bench valgrind        counts those of the file server
TABLE
}

main() {
    local wanted=" $* " missing=() set package reason
    (($#)) || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
    if ! command -v dpkg-query >/dev/null; then
        echo "install-deps: no Debian system: install what stands in the table of $0 by hand" >&2
    else
        while read -r set package reason; do
            [[ $wanted == *" $set "* && " ${missing[*]} " != *" $package "* ]] || continue
            installed "$package" && continue
            echo "install-deps: $package: $reason" >&2
            missing+=("$package")
        done < <(packages)
        ((${#missing[@]} == 0)) || install "${missing[@]}"
    fi
    if [[ $wanted == *" build "* ]]; then need_rust; fi
}

installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

install() {
    local as_root=() log
    if ((EUID != 0)); then
        command -v sudo >/dev/null || {
            echo "install-deps: neither root nor sudo; as root: apt-get install --no-install-recommends $*" >&2
            exit 1
        }
        as_root=(sudo)
    fi
    log=$(mktemp)
    # Package lists may be missing or old: they are fetched when installing fails without.
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q)
    if ! "${apt[@]}" install --no-install-recommends "$@" >"$log" 2>&1 </dev/null &&
        ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        echo "install-deps: cannot install $*" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
}

need_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
    if ! command -v cargo >/dev/null; then
        echo "install-deps: no Rust toolchain: cargo is not in PATH; install Rust $wanted or newer from https://rustup.rs" >&2
        exit 1
    fi
    if ! have=$(cargo --version 2>&1); then
        echo "install-deps: the Rust toolchain does not run: $(command -v cargo) says: $have" >&2
        exit 1
    fi
    have=$(cut -d' ' -f2 <<<"$have")
    if [[ $(printf '%s\n' "$wanted" "$have" | sort -V | head -n1) != "$wanted" ]]; then
        echo "install-deps: Rust $have is too old: $wanted or newer is needed; try: rustup update stable" >&2
        exit 1
    fi
}

main "$@"
