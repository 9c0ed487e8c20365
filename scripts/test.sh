#!/bin/bash
# Runs every test: scripts/test.sh [FILTER]. As root it runs them twice, as root and as a user without any privilege,
# for the program behaves differently; otherwise once. FILTER is handed to each test program.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD

# Most seconds that one test program may take: many times what the longest takes, for a machine that does much else.
limit=${TEST_LIMIT:-1800}
# A user that no host knows: without a name, a home or a group of its own.
user=63999

scripts/install-deps.sh build test
if ((EUID == 0)) && [[ -c /dev/fuse && $(stat -c %a /dev/fuse) != *6 ]]; then
    echo "test: /dev/fuse is closed to users on this host; opening it: chmod 666 /dev/fuse"
    chmod 666 /dev/fuse
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 711 "$work"

# One line a test program: the directory it runs in, the program.
list() {
    cargo test --workspace --locked --no-run --message-format=json-render-diagnostics 2>"$work/build.log" >"$work/messages" ||
        { cat "$work/build.log" >&2; exit 1; }
    python3 - "$work/messages" <<'PY'
import json, os, sys
for line in open(sys.argv[1]):
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]:
        print(os.path.dirname(message["manifest_path"]), message["executable"], sep="\t")
PY
}
list >"$work/programs"

passed=0
failed=0

# Runs every program through the command words given; the name of the run comes first.
run_all() {
    local name=$1 directory program log status ok bad
    shift
    while IFS=$'\t' read -r directory program; do
        log=$work/log
        status=0
        (cd "$directory" && exec "$@" CARGO_MANIFEST_DIR="$directory" timeout --kill-after=10 "$limit" "$program" \
            ${filter:+"$filter"}) >"$log" 2>&1 </dev/null || status=$?
        ok=$(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1/p' "$log" | tail -n1)
        bad=$(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\2/p' "$log" | tail -n1)
        # A program that died or was stopped has failed at least once, whatever it printed.
        if ((status != 0 && ${bad:-0} == 0)); then bad=1; fi
        passed=$((passed + ${ok:-0}))
        failed=$((failed + ${bad:-0}))
        # Nothing to say of a program without tests, or without one that the filter lets through.
        if ((status != 0 || ${ok:-0} + ${bad:-0} > 0)); then
            printf '%s: %s: %s passed, %s failed\n' "$name" "$(basename "$program" | sed 's/-[0-9a-f]*$//')" \
                "${ok:-0}" "${bad:-0}"
        fi
        if ((status != 0)); then
            cat "$log"
            ((status != 124)) || echo "test: $program was stopped after $limit seconds"
        fi
    done <"$work/programs"
}

# The first directory on the way to $1 that the user may not enter; nothing when all may be.
closed_directory() {
    local path=$1 found=
    while :; do
        setpriv --reuid="$user" --regid="$user" --clear-groups test -x "$path" || found=$path
        [[ $path != / ]] || break
        path=$(dirname "$path")
    done
    printf '%s' "$found"
}

run_as_user() {
    local home=$work/home closed
    mkdir -p "$home/tmp" "$home/run"
    chmod 700 "$home" "$home/run"
    chown -R "$user:$user" "$home"
    closed=$(closed_directory "$top")
    if [[ -n $closed ]]; then
        # The programs know each other by absolute paths. In a mount namespace of these runs only, the same path
        # leads there through directories that anybody may enter.
        echo "test: $closed is closed to users; showing the checkout to them in a mount namespace"
        mount --make-rprivate /
        mount --bind "$top" /mnt
        mount -t tmpfs -o mode=755 tmpfs "$closed"
        mkdir -p "$top"
        mount --move /mnt "$top"
    fi
    run_all user setpriv --reuid="$user" --regid="$user" --clear-groups \
        env -i PATH="$PATH" HOME="$home" TMPDIR="$home/tmp" XDG_RUNTIME_DIR="$home/run"
}

filter=${1:-}
if ((EUID == 0)); then
    run_all root env
    # In a mount namespace of its own when the checkout must be shown at its path.
    if [[ -n $(closed_directory "$top") ]]; then
        export -f run_all run_as_user closed_directory
        export work user top limit filter
        # shellcheck disable=SC2016
        unshare --mount bash -euo pipefail -c '
            passed=0 failed=0
            run_as_user
            echo "$passed $failed" >"$work/counts"'
        read -r more_passed more_failed <"$work/counts"
        passed=$((passed + more_passed))
        failed=$((failed + more_failed))
    else
        run_as_user
    fi
else
    run_all user env
fi

echo "$passed passed, $failed failed"
((failed == 0))
