#!/bin/bash
# Runs every fuzz target for SECONDS each: scripts/fuzz.sh [SECONDS=60]. A finding ends it with an error.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
time=${1:-60}

if ! command -v cargo-fuzz >/dev/null; then
    echo "fuzz.sh: installing cargo-fuzz" >&2
    cargo install --locked cargo-fuzz
fi
# Sanitizers are unstable options, which the stable compiler takes when bootstrapping is said; and they need a
# dynamic libc, which the workspace's wrapper would take away.
export RUSTC_BOOTSTRAP=1 RUSTC_WORKSPACE_WRAPPER=

for target in $(cargo fuzz list); do
    echo "fuzz.sh: $target, $time s" >&2
    cargo fuzz run "$target" -- -max_total_time="$time" -max_len=16384 -timeout=20 -rss_limit_mb=1024 \
        -malloc_limit_mb=64 -print_final_stats=1
done
