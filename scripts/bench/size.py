"""The section `size`: whether a start takes longer where there is more in the image."""

import os
import random
import shutil

from turns import fim, fim_environment, measure, quick, run, spawn, table, turns, work

NOISE = 16 << 20


def noise(path, size):
    """A file that does not get smaller."""
    block = random.Random(1).randbytes(NOISE)
    with open(path, "wb") as file:
        for part in range(0, size, NOISE):
            # Equal blocks would be stored once.
            file.write(part.to_bytes(8, "little") + block[8 : min(NOISE, size - part)])


def holes(tree):
    """4 GiB, of which there is little."""
    noise(tree / "data", 10 << 20)
    with open(tree / "holes", "wb") as file:
        file.truncate((4 << 30) - (10 << 20))


def many(path, count):
    for index in range(count):
        directory = path / f"{index // 1000}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{index}").write_bytes(b"%d" % index)


def built(name, fill):
    """An image with the measuring program and what `fill` puts beside it."""
    tree, made = work / f"size-{name}", work / f"size-{name}.flatimage"
    tree.mkdir()
    shutil.copy(measure, tree / "nothing")
    fill(tree)
    run([fim, "build", str(tree), "-o", str(made), "--quiet", "--level", "1", "--boot", "/nothing"])
    shutil.rmtree(tree)
    return str(made)


def size():
    images = [
        ("**10 MB**", built("small", lambda tree: noise(tree / "data", 10 << 20))),
        ("466 MB", built("large", lambda tree: noise(tree / "data", 466 << 20))),
        ("4 GiB, all but 10 MB of it holes", built("sparse", holes)),
        ("100,000 files", built("many", lambda tree: many(tree / "files", 100_000))),
    ]
    rows = []
    for name, made in images:
        env = fim_environment()
        start = lambda made=made, env=env: spawn([made, "fim-exec", "/nothing", "nothing"], env)
        rows.append((f"{name}: an image of {os.path.getsize(made) >> 20} MiB", start))
    title = "First start of a static program, by what else is in the image"
    table(title, turns(rows, 7 if quick else 31, 2), "ms", "less", 2)
    for _, made in images:
        os.remove(made)
