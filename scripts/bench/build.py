"""The section `build`: packing, beside mksquashfs at the same level and block size."""

import json
import os

from turns import fim, quick, run, spawn, table, tree, turns, work

BLOCK = "131072"


def build():
    threads = str(os.cpu_count())
    out, peer = str(work / "built.flatimage"), str(work / "built.sqfs")
    # As a directory, should the tree be behind a link.
    source = os.path.realpath(tree)
    pack = [fim, "build", source, "-o", out, "--force", "--quiet", "--block-size", "128K", "--threads", threads]
    mksquashfs = ["mksquashfs", source, peer, "-noappend", "-quiet", "-no-progress", "-comp", "zstd", "-b", BLOCK]
    mksquashfs += ["-processors", threads, "-Xcompression-level"]
    for level, rounds in (("3", 2 if quick else 5), ("19", 0 if quick else 3)):
        if not rounds:
            continue
        sizes = {}

        def ours(name, *options):
            def one():
                seconds = spawn([*pack, "--level", level, *options]) / 1e3
                sizes[name] = json.loads(run([fim, "inspect", "--json", out]))["layers"][0]["size"]
                return seconds

            return name, one

        def theirs():
            seconds = spawn([*mksquashfs, level]) / 1e3
            sizes["mksquashfs"] = os.path.getsize(peer)
            return seconds

        rows = [ours("**fim build**"), ours("fim build --no-startup-set", "--no-startup-set"), ("mksquashfs", theirs)]
        title = f"Packing the Debian tree, zstd {level}, blocks of 128 KiB, {threads} threads"
        table(title, turns(rows, rounds, 0), "s", "less", 2)
        print("\n| squashfs | bytes | to mksquashfs |\n|---|---:|---:|")
        for name, size in sizes.items():
            print(f"| {name} | {size} | {size / sizes['mksquashfs']:.3f} |", flush=True)
