"""The section `instructions`: how many a start and the block cache take, which does not drift as times do.

A start makes namespaces that valgrind does not know, so that it is counted by the processor, where a virtual machine
lets it. The server of the layers is counted by callgrind, everywhere.
"""

import os
import re
import subprocess

from containers import Held
from start import bwrap_on
from turns import fim_environment, image, measure, run, tree, work

SIZE = 16 << 20
# What the functions of the server are for, and how callgrind calls them: innermost last.
PARTS = [
    ("answers to the kernel", r"LayerFs as fuser::Filesystem>::read$"),
    ("blocks loaded", r"squashfs::data::.*::load$"),
    ("zstd", r"ZSTD_decompressDCtx$"),
]
LINE = re.compile(r"\s*([\d,]+) \([ \d.]+%\)\s+(.*?)(?: \[[^]]*\])?$")


def instructions():
    starts()
    block_cache()


def counted(words, env=None):
    """Instructions in user space and in the kernel, children included; None where they cannot be counted."""
    out = work / "perf"
    command = ["perf", "stat", "-x", ",", "-o", str(out), "-e", "instructions:u,instructions:k", *words]
    run(command, env=env)
    counts = [line.split(",")[0] for line in out.read_text().splitlines() if "instructions" in line]
    return [int(count) for count in counts] if len(counts) == 2 and all(map(str.isdigit, counts)) else None


def starts():
    env = fim_environment()
    if not counted(["/bin/true"]):
        print("\nThis machine does not let anybody count the instructions of a start.")
        return
    true = [image, "fim-exec", "/bin/true"]
    rows = [("**fim-exec /bin/true, first start**", counted(true, fim_environment()))]
    with Held([image, "fim-exec", "/measure", "hold"], env=env):
        rows.append(("**fim-exec /bin/true, joining a session**", counted(true, env)))
    rows.append(("bwrap --unshare-all on the unpacked tree", counted(bwrap_on(tree))))
    rows.append(("fork and exec of the host's /bin/true", counted(["/bin/true"])))
    print("\n### Instructions of a start, daemons included until it returns, thousands\n")
    print("| | user space | kernel |\n|---|---:|---:|")
    for name, (user, kernel) in rows:
        print(f"| {name} | {user // 1000} | {kernel // 1000} |", flush=True)


def server():
    """The example that serves archives, optimised and with the names of its functions."""
    target = "target/bench-symbols"
    settings = {"DEBUG": "line-tables-only", "STRIP": "none", "LTO": "off"}
    env = dict(os.environ, **{f"CARGO_PROFILE_RELEASE_{name}": value for name, value in settings.items()})
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--package", "runtime", "--example", "serve"]
    run([*build, "--target-dir", target], env=env)
    return f"{target}/release/examples/serve"


def contents(path):
    """What a system holds, so that it compresses as that does."""
    with open(path, "wb") as out:
        for directory, _, names in sorted(os.walk(f"{tree}/usr/lib")):
            for name in sorted(names):
                file = os.path.join(directory, name)
                if os.path.isfile(file) and not os.path.islink(file):
                    with open(file, "rb") as data:
                        out.write(data.read(SIZE - out.tell()))
                if out.tell() == SIZE:
                    return
    raise SystemExit(f"bench: {tree}/usr/lib has less than {SIZE} bytes")


def block_cache():
    source, mount, archive, out = (work / name for name in ("counted", "counted-mount", "counted.sqfs", "callgrind"))
    source.mkdir()
    mount.mkdir()
    contents(source / "data")
    run(["mksquashfs", str(source), str(archive), "-noappend", "-quiet", "-no-progress", "-comp", "zstd"])
    serve = server()
    columns = {
        "every byte, in order": ["tree", str(mount / "0"), "1", "1"],
        "4 KiB at 4000 random places": ["random", str(mount / "0" / "data"), "4000"],
    }
    serving = [serve, str(mount), str(archive), "--", measure]
    found = {what: callgrind([*serving, *words], out) for what, words in columns.items()}
    print(f"\n### Instructions of the server in user space, for {SIZE >> 20} MiB in blocks of 128 KiB, thousands\n")
    print(f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for part in ("all", *(name for name, _ in PARTS)):
        print(f"| {part} | {' | '.join(str(found[what][part] // 1000) for what in columns)} |", flush=True)


def callgrind(words, out):
    """Instructions of all of a program and of its parts, each with what it calls."""
    command = ["valgrind", "--quiet", "--tool=callgrind", "--trace-children=no", f"--callgrind-out-file={out}", *words]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)}: status {done.returncode}: {done.stderr.strip()}")
    annotated = run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--auto=no", str(out)])
    lines = [match for match in map(LINE.match, annotated.splitlines()) if match]
    number = lambda match: int(match[1].replace(",", ""))
    found = {"all": max(map(number, lines))}
    for name, pattern in PARTS:
        found[name] = max((number(line) for line in lines if re.search(pattern, line[2])), default=0)
    return found
