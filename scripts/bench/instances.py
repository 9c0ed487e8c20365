"""The section `instances`: many at once, what they cost, and that they rest."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from processes import children, descendants, name, private, proportional, switches
from turns import fim_environment, image, quick, spawn, table, tree, turns

COUNT = 200
SLEEP = ["sh", "-c", "echo running; exec sleep 1000000"]
BWRAP = ["bwrap", "--ro-bind", tree, "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "--die-with-parent"]


class Many:
    """So many commands at once, started by two clients at a time."""

    def __init__(self, words, env=None):
        self.words, self.env, self.running = words, env, []

    def one(self, _):
        process = subprocess.Popen(
            [*self.words, *SLEEP], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        self.running.append(process)
        if not process.stdout.readline():
            raise SystemExit(f"bench: {process.args}: ended at once")

    def __enter__(self):
        begin = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.one, range(COUNT)))
        self.rate = COUNT / (time.monotonic() - begin)
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait()


def start_rate(words, env=None):
    with Many(words, env) as many:
        return many.rate


def mean(figure, pids):
    return sum(figure(pid) for pid in pids) / COUNT / 1024


def instances_section():
    rows = [
        ("**fim-exec**", lambda: start_rate([image, "fim-exec"], fim_environment())),
        ("bwrap --unshare-all on the unpacked tree", lambda: start_rate(BWRAP)),
    ]
    title = f"Starting {COUNT} instances of `sleep`, two at a time"
    table(title, turns(rows, 1 if quick else 5, 0), "starts/s", "more", 0)

    env = fim_environment()
    with Many([image, "fim-exec"], env) as many:
        command = lambda *words: lambda: spawn([image, "fim-instance", *words], env)
        rows = [
            ("**fim-instance list**", command("list")),
            ("fim-instance list --json", command("list", "--json")),
            (f"fim-instance exec {COUNT - 1} /bin/true", command("exec", str(COUNT - 1), "/bin/true")),
            ("fork and exec of the host's /bin/true", lambda: spawn(["/bin/true"])),
        ]
        table(f"With {COUNT} instances alive", turns(rows, 15 if quick else 101, 2), "ms", "less", 2)
        memory(many)


def memory(many):
    starters = [process.pid for process in many.running]
    ours = {pid: name(pid) for starter in starters for pid in descendants(starter)}
    named = lambda word: [pid for pid, name in ours.items() if name == word]
    guests, hosts, servers = named("fim-guest"), named("fim-host"), named("fim-mount")
    if (len(guests), len(hosts), len(servers)) != (COUNT, 1, 1):
        raise SystemExit(f"bench: not the processes of {COUNT} instances: {sorted(ours.values())}")
    parts = [("starter", starters), ("guest daemon", guests), ("share of the host daemon", hosts)]
    parts += [("share of the mount server", servers)]
    commands = [pid for guest in guests for pid in children(guest)]
    rows = [*parts, ("**all of it**", [pid for _, pids in parts for pid in pids]), ("the command itself", commands)]
    print(f"\n| memory for one of {COUNT} instances | private KiB | proportional KiB |\n|---|---:|---:|")
    for what, pids in rows:
        print(f"| {what} | {mean(private, pids):.0f} | {mean(proportional, pids):.0f} |")

    rest = 10
    daemons = [pid for _, pids in parts for pid in pids]
    time.sleep(1)
    before = switches(daemons)
    time.sleep(rest)
    woken = sum(switches(daemons).values()) - sum(before.values())
    print(f"\nThe {len(before)} threads of these {len(daemons)} processes woke up {woken} times in {rest} seconds.")
