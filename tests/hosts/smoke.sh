# What must work wherever an image runs. POSIX sh; $IMAGE is how the image is called.
set -u
fail() {
    echo "smoke: $*"
    exit 1
}
same() {
    [ "$2" = "$3" ] || fail "$1: $3, not $2"
}
said=$("$IMAGE" fim-exec echo hello) || fail "fim-exec gives $?"
same "what fim-exec says" hello "$said"
"$IMAGE" fim-exec sh -c 'exit 7'
same "exit code" 7 $?
"$IMAGE" fim-root sh -c 'echo kept > /etc/note && chmod 600 /etc/note' || fail "fim-root gives $?"
same "what root wrote" kept "$("$IMAGE" fim-root cat /etc/note)"
id=$("$IMAGE" fim-exec --detach sleep 1000) || fail "fim-exec --detach gives $?"
"$IMAGE" fim-instance list | grep -q "^$id:" || fail "instance $id is not listed"
same "what fim-instance exec says" inside "$("$IMAGE" fim-instance exec "$id" echo inside)"
"$IMAGE" fim-instance stop "$id" || fail "fim-instance stop gives $?"
! grep fuse.fim /proc/self/mounts || fail "a mount is left"
"$IMAGE" fim-doctor > doctor.log || fail "fim-doctor finds: $(cat doctor.log)"
rm doctor.log
echo smoke: all works
