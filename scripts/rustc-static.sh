#!/bin/sh
# Cargo calls this as `scripts/rustc-static.sh rustc ARGS...` for every crate of the workspace.
# It adds +crt-static where a program or a test is linked. Plain rustflags would reach procedural
# macros too, which cannot be static; `build.target` would move the output out of target/release.
case " $* " in
*" --crate-name build_script_"* | *" --crate-name ___ "*) ;; # build scripts; cargo's probe of the compiler
*" --crate-type bin "* | *" --test "*) exec "$@" -C target-feature=+crt-static ;;
esac
exec "$@"
