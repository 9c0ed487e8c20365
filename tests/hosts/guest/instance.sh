# An instance that tells that it runs and then waits.
"$IMAGE" fim-exec sh -c 'echo started; exec sleep 1000' > /tmp/started
echo "start: $?"
