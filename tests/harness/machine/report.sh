# How a guest tells what came of its cases.
export PATH=/bin

# Runs a case, which is a function; its exit code and what it says go to the console in a block of their own.
run() {
    code=0
    "$1" > /tmp/out 2> /tmp/err || code=$?
    echo "== $1 $code"
    sed 's/^/1 /' /tmp/out
    sed 's/^/2 /' /tmp/err
    echo "== end of $1"
}

finish() {
    echo "== all done"
    poweroff -f
}
