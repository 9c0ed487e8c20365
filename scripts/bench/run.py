"""Takes the turns of scripts/bench.sh and prints the tables. Arguments: the cache directory, [--quick], sections."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

cache = Path(sys.argv[1])
quick = "--quick" in sys.argv
sections = [word for word in sys.argv[2:] if not word.startswith("-")] or ["start", "read"]
measure = str(cache / "measure")
tree = str(cache / "debian")
user = "63999"
work = Path(tempfile.mkdtemp(prefix="fim-bench-"))
work.chmod(0o755)
mount_point = str(work / "mount")
os.mkdir(mount_point)
data_count = 0


def run(words, **options):
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(words)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def spawn(words, env=None, before=()):
    """Milliseconds of commands separated by ++."""
    return float(run([*before, measure, "spawn", *words], env=env))


def data_directory(owner=None):
    """A data directory whose root holds the measuring program."""
    global data_count
    data_count += 1
    place = work / f"data{data_count}"
    for name in ("", "root", "work"):
        (place / name).mkdir()
        (place / name).chmod(0o755)
    shutil.copy(measure, place / "root" / "measure")
    if owner:
        run(["chown", "-R", f"{owner}:{owner}", str(place)])
    return str(place)


def fim_environment(owner=None):
    env = dict(os.environ, FIM_DIR_DATA=data_directory(owner))
    env.pop("XDG_RUNTIME_DIR", None)
    return env


def table(title, rows, unit, better, digits):
    """Rows are (name, values); the first is the one others are compared with."""
    print(f"\n### {title}\n\n| | median {unit} | min | max | to fim |\n|---|---:|---:|---:|---:|")
    reference = statistics.median(rows[0][1])
    for name, values in rows:
        median = statistics.median(values)
        ratio = median / reference if better == "less" else reference / median
        print(f"| {name} | {median:.{digits}f} | {min(values):.{digits}f} | {max(values):.{digits}f} | {ratio:.2f} |")
    sys.stdout.flush()


def turns(rows, rounds, warm):
    """Calls every row's function in turn, so that drift of the machine meets all alike."""
    values = {name: [] for name, _ in rows}
    for turn in range(-warm, rounds):
        for name, function in rows:
            value = function()
            if turn >= 0:
                values[name].append(value)
    return [(name, values[name]) for name, _ in rows]


def start():
    image = str(cache / "debian.flatimage")
    archive = str(cache / "debian.sqfs")
    bwrap = ["--dev", "/dev", "--proc", "/proc", "--unshare-all", "--die-with-parent", "/bin/true"]
    first, static, joined, other = fim_environment(), fim_environment(), fim_environment(), fim_environment(user)
    other["HOME"] = "/"
    holder = subprocess.Popen(
        [image, "fim-exec", "/measure", "hold"], env=joined, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    bundle = work / "bundle"
    bundle.mkdir()
    run(["crun", "spec"], cwd=bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["root"] = {"path": tree, "readonly": False}
    config["process"].update(terminal=False, args=["/bin/true"])
    config["process"].pop("rlimits", None)
    (bundle / "config.json").write_text(json.dumps(config))
    podman = ["podman", "--cgroup-manager=cgroupfs", "run", "--rm", "--cgroups=disabled", "--network=none"]
    podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--rootfs", tree, "/bin/true"]
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    rows = [
        ("**fim-exec /bin/true, first start**", lambda: spawn([image, "fim-exec", "/bin/true"], first)),
        ("**fim-exec /bin/true, joining a session**", lambda: spawn([image, "fim-exec", "/bin/true"], joined)),
        ("fim-exec /bin/true, first start, as a user", lambda: spawn([image, "fim-exec", "/bin/true"], other, as_user)),
        ("fim-exec of a static program, first start", lambda: spawn([image, "fim-exec", "/measure", "nothing"], static)),
        ("fork and exec of the host's /bin/true", lambda: spawn(["/bin/true"])),
        ("bwrap --unshare-all on the unpacked tree", lambda: spawn(["bwrap", "--ro-bind", tree, "/", *bwrap])),
        (
            "squashfuse_ll, bwrap, umount",
            lambda: spawn(
                ["squashfuse_ll", archive, mount_point]
                + ["++", "bwrap", "--ro-bind", mount_point, "/", *bwrap]
                + ["++", "umount", mount_point]
            ),
        ),
        (
            "kernel squashfs on a loop device, bwrap, umount",
            lambda: spawn(
                ["mount", "-t", "squashfs", "-o", "loop,ro", archive, mount_point]
                + ["++", "bwrap", "--ro-bind", mount_point, "/", *bwrap]
                + ["++", "umount", mount_point]
            ),
        ),
        (
            "crun run on the unpacked tree",
            lambda: spawn(["crun", "--cgroup-manager=disabled", "run", "-b", str(bundle), "fim-bench"]),
        ),
        ("podman run --rootfs on the unpacked tree", lambda: spawn(podman)),
    ]
    table("Start to exit of `/bin/true`", turns(rows, 7 if quick else 31, 2), "ms", "less", 2)
    holder.stdin.close()
    holder.wait()


def on_fim(image, *words):
    return run([str(cache / image), "fim-exec", "/measure", *words], env=fim_environment()).split()


def mounted(command, archive, *words):
    run([*command, str(cache / archive), mount_point])
    try:
        words = [mount_point + word if word.startswith("/") else word for word in words]
        return run([measure, *words]).split()
    finally:
        run(["umount", mount_point])


PEERS = [
    ("kernel squashfs", ["mount", "-t", "squashfs", "-o", "loop,ro"]),
    ("squashfuse_ll", ["squashfuse_ll"]),
]


def everywhere(image, *words):
    """One turn: fim, then each peer, each on a fresh mount. The archive itself is in the page cache."""
    archive = image.replace(".flatimage", ".sqfs")
    for file in (image, archive):
        with open(cache / file, "rb") as stream:
            while stream.read(1 << 20):
                pass
    yield "**fim**", on_fim(image, *words)
    for name, command in PEERS:
        yield name, mounted(command, archive, *words)


def gather(rounds, image, *words):
    results = {}
    for _ in range(rounds):
        for name, result in everywhere(image, *words):
            results.setdefault(name, []).append([float(word) for word in result])
    return results


def read():
    rounds = 2 if quick else 7
    for readers in ("1", "2"):
        results = gather(rounds, "debian.flatimage", "tree", "/", readers, "2")
        for index, what in ((1, "a fresh mount"), (2, "second pass")):
            rows = [(name, [r[0] / r[index] / 1e6 for r in result]) for name, result in results.items()]
            noun = "reader" if readers == "1" else "readers"
            table(f"Reading the whole tree, {readers} {noun}, {what}", rows, "MB/s", "more", 0)
    results = gather(rounds, "debian.flatimage", "list", "/", "2")
    for index, what in ((1, "a fresh mount"), (2, "second pass")):
        rows = [(name, [r[index] * 1e3 for r in result]) for name, result in results.items()]
        table(f"Listing the whole tree with attributes, {what}", rows, "ms", "less", 0)
    results = gather(rounds, "big.flatimage", "random", "/big.bin", "5000")
    rows = [(name, [r[0] for r in result]) for name, result in results.items()]
    table("Random 4 KiB of a 256 MiB file, a fresh mount", rows, "reads/s", "more", 0)


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    version = lambda *words: run(list(words)).splitlines()[0].strip()
    commit = version("git", "rev-parse", "--short", "HEAD")
    print(f"fim {commit}, {os.cpu_count()} processors ({model}), Linux {platform.release()}.", end=" ")
    peers = [version("bwrap", "--version"), version("crun", "--version"), version("podman", "--version")]
    print(f"Peers: {', '.join(peers)}, squashfuse of Debian. Load when it began: {os.getloadavg()[0]:.1f}.")


try:
    machine()
    for section in sections:
        {"start": start, "read": read}[section]()
finally:
    subprocess.run(["umount", "-l", mount_point], stderr=subprocess.DEVNULL)
    shutil.rmtree(work, ignore_errors=True)
