"""The sections `exec` and `pipe`: commands in something that runs already."""

import os
import subprocess
import threading

from containers import Crun, Held, Podman
from processes import descendants, name, peak
from turns import fim_environment, image, measure, quick, spawn, table, turns


def command_of(starter):
    """The process of the command of an instance."""
    return next(pid for pid in descendants(starter.pid) if name(pid) == "measure")


def exec_section():
    env = fim_environment()
    true = "/bin/true"
    with Held([image, "fim-exec", "/measure", "hold"], env=env) as starter, Crun("exec") as crun:
        nsenter = ["nsenter", "-t", str(command_of(starter)), "--all"]
        rows = [
            ("**fim-instance exec 0 /bin/true**", lambda: spawn([image, "fim-instance", "exec", "0", true], env)),
            ("nsenter into the same instance", lambda: spawn([*nsenter, true])),
            ("crun exec", lambda: spawn(crun.exec(true))),
            ("fork and exec of the host's /bin/true", lambda: spawn([true])),
        ]
        values = turns(rows, 15 if quick else 101, 3)
    with Podman("exec") as podman:
        values += turns([("podman exec", lambda: spawn(podman.exec(true)))], 5 if quick else 15, 1)
    table("From start to exit of `/bin/true` in what runs already", values, "ms", "less", 2)


class Watch:
    """Peak memory of processes while it lasts, near the beginning and at the end."""

    def __init__(self, pids):
        self.pids = pids
        self.first, self.last = {}, {}
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.done.wait(0.05):
            for pid in self.pids():
                try:
                    self.last[pid] = (name(pid), peak(pid))
                except (OSError, KeyError):
                    continue
                self.first.setdefault(pid, self.last[pid])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def through(command, size, env=None, watched=None):
    """Bytes a second from a source through a command to a sink."""
    source = subprocess.Popen([measure, "source", str(size)], stdout=subprocess.PIPE)
    middle = subprocess.Popen(command, stdin=source.stdout, stdout=subprocess.PIPE, env=env)
    sink = subprocess.Popen([measure, "sink"], stdin=middle.stdout, stdout=subprocess.PIPE, text=True)
    source.stdout.close()
    middle.stdout.close()
    if watched:
        watched(middle.pid)
    count, seconds = sink.communicate()[0].split()
    codes = [process.wait() for process in (source, middle, sink)]
    if int(count) != size or any(codes):
        raise SystemExit(f"bench: {count} of {size} bytes through {command}, exit codes {codes}")
    return size / float(seconds) / 1e6


def pipe_section():
    env = fim_environment()
    size = (1 if quick else 4) << 30
    client = 0

    def started(pid):
        nonlocal client
        client = pid

    with Held([image, "fim-exec", "/measure", "hold"], env=env) as starter, Crun("pipe") as crun:
        fim = [image, "fim-instance", "exec", "0", "cat"]
        ours = lambda: [client, starter.pid, *(pid for pid in descendants(starter.pid) if name(pid).startswith("fim-"))]
        rows = [
            ("**fim-instance exec 0 cat**", lambda: through(fim, size, env, started)),
            ("crun exec", lambda: through(crun.exec("cat"), size)),
            ("cat on the host", lambda: through(["cat"], size)),
        ]
        with Watch(ours) as watch:
            values = turns(rows, 3 if quick else 7, 0)
    with Podman("pipe") as podman:
        values += turns([("podman exec", lambda: through(podman.exec("cat"), size))], 1 if quick else 3, 0)
    table(f"{size >> 30} GiB from one process through `cat` to another", values, "MB/s", "more", 0)
    print("\n| peak memory meanwhile, KiB | first look | last look |\n|---|---:|---:|")
    largest = {}
    for pid, (what, last) in watch.last.items():
        what = what if what.startswith("fim-") else "client" if pid != starter.pid else "starter"
        largest[what] = max(largest.get(what, (0, 0)), (last, watch.first[pid][1]))
    for what, (last, first) in sorted(largest.items()):
        print(f"| {what} | {first >> 10} | {last >> 10} |")
