"""What /proc tells of processes."""

from pathlib import Path


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def fields(path, names):
    """The numbers after `NAME:` in a file of /proc; those in kB are bytes."""
    values = dict.fromkeys(names, 0)
    for line in Path(path).read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in values:
            number, *unit = rest.split()
            values[key] += int(number) * (1024 if unit else 1)
    return [values[name] for name in names]


def private(pid):
    """Bytes of memory that the process shares with no other."""
    return sum(fields(f"/proc/{pid}/smaps_rollup", ["Private_Clean", "Private_Dirty"]))


def proportional(pid):
    """Bytes of memory in use, shared ones divided among those who share them."""
    return fields(f"/proc/{pid}/smaps_rollup", ["Pss"])[0]


def peak(pid):
    """The most memory that the process has had in use, in bytes."""
    return fields(f"/proc/{pid}/status", ["VmHWM"])[0]


def switches(pids):
    """Context switches of every thread of the processes, by thread."""
    counts = {}
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            counts[thread.name] = sum(
                fields(thread / "status", ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"])
            )
    return counts
