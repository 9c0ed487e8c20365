"""What every section of scripts/bench.sh uses: commands, turns and tables."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

cache = Path(sys.argv[1])
quick = "--quick" in sys.argv
measure = str(cache / "measure")
tree = str(cache / "debian")
image = str(cache / "debian.flatimage")
fim = "target/release/fim"
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
    """Milliseconds of commands separated by ++. What they print comes before."""
    return float(run([*before, measure, "spawn", *words], env=env).split()[-1])


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


def rotated(rows, turn):
    """The rows, another one first in each turn: who is first meets what the last one has left behind."""
    first = turn % len(rows)
    return rows[first:] + rows[:first]


def turns(rows, rounds, warm):
    """Calls every row's function in turn, so that drift of the machine meets all alike."""
    values = {name: [] for name, _ in rows}
    for turn in range(-warm, rounds):
        for name, function in rotated(rows, turn):
            value = function()
            if turn >= 0:
                values[name].append(value)
    return [(name, values[name]) for name, _ in rows]
