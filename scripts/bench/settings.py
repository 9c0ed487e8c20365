"""The section `settings`: commands that read and change what is stored in an image, and a start with much of it."""

import os
import shutil

from containers import Held
from turns import fim_environment, image, measure, quick, run, spawn, table, turns, work

BINDS, VARIABLES = 100, 200
SPARSE = 4 << 30


def copy_of(name, size=None):
    path = work / name
    shutil.copy(image, path)
    if size:
        # What stands behind the last layer means nothing, and takes no room.
        os.truncate(path, size)
    return str(path)


def settings():
    env = fim_environment()
    small, sparse = copy_of("small.flatimage"), copy_of("sparse.flatimage", SPARSE)
    slot = work / "slot"
    slot.write_bytes(bytes(8192))
    count = iter(range(1 << 30))
    rows = [
        ("**fim-perms list**", lambda: spawn([small, "fim-perms", "list"], env)),
        ("fim-perms list, image of 4 GiB", lambda: spawn([sparse, "fim-perms", "list"], env)),
        ("fim-env list --json", lambda: spawn([small, "fim-env", "list", "--json"], env)),
        ("fim-boot show", lambda: spawn([small, "fim-boot", "show"], env)),
        ("fim-env set of another value", lambda: spawn([small, "fim-env", "set", f"A={next(count)}"], env)),
        ("fim-env set, image of 4 GiB", lambda: spawn([sparse, "fim-env", "set", f"A={next(count)}"], env)),
        ("fork and exec of a static program", lambda: spawn([measure, "nothing"])),
        ("the same, then write and fsync of a slot", lambda: spawn([measure, "slot", str(slot)])),
    ]
    table("Settings", turns(rows, 15 if quick else 51, 3), "ms", "less", 2)

    many = copy_of("many.flatimage")
    for index in range(BINDS):
        run([many, "fim-bind", "add", "ro", "/etc/hostname", f"/bound/{index}"])
    run([many, "fim-env", "add", *(f"NAME{index}=value {index}" for index in range(VARIABLES))])
    plain, full = fim_environment(), fim_environment()
    joined_plain, joined_full = fim_environment(), fim_environment()
    true = ["fim-exec", "/bin/true"]
    rows = [
        ("**first start, nothing stored**", lambda: spawn([small, *true], plain)),
        (f"first start, {BINDS} binds and {VARIABLES} variables", lambda: spawn([many, *true], full)),
        ("joining, nothing stored", lambda: spawn([small, *true], joined_plain)),
        (f"joining, {BINDS} binds and {VARIABLES} variables", lambda: spawn([many, *true], joined_full)),
    ]
    hold = ["fim-exec", "/measure", "hold"]
    with Held([small, *hold], env=joined_plain), Held([many, *hold], env=joined_full):
        table("Start with stored binds and variables", turns(rows, 7 if quick else 31, 2), "ms", "less", 2)
