"""The section `calls`: the system calls of a start, counted by strace."""

import re

from containers import Held
from turns import fim_environment, image, run, work

SHOWN = 16
LINE = re.compile(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$")


def counted(env):
    """Calls of all processes of a start, by name."""
    out = work / "strace"
    run(["strace", "--follow-forks", "--summary-only", "--output", str(out), image, "fim-exec", "/bin/true"], env=env)
    found = (LINE.match(line) for line in out.read_text().splitlines())
    calls = {match[2]: int(match[1]) for match in found if match and match[2] != "total"}
    if not calls:
        raise SystemExit(f"bench: strace has counted nothing:\n{out.read_text()}")
    return calls


def calls():
    first = counted(fim_environment())
    env = fim_environment()
    with Held([image, "fim-exec", "/measure", "hold"], env=env):
        joining = counted(env)
    print("\n### System calls of `fim-exec /bin/true`, of all processes to their ends\n")
    print("| | first start | joining |\n|---|---:|---:|")
    print(f"| **all** | {sum(first.values())} | {sum(joining.values())} |")
    for name, count in sorted(first.items(), key=lambda item: -item[1])[:SHOWN]:
        print(f"| {name} | {count} | {joining.get(name, 0)} |")
    rest = sum(sorted(first.values())[:-SHOWN])
    shown = sorted(first, key=lambda name: -first[name])[:SHOWN]
    print(f"| others | {rest} | {sum(count for name, count in joining.items() if name not in shown)} |", flush=True)
