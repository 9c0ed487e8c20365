"""The section `write`: writing through the root, over each overlay and over their peers. All of them write to one tmpfs:
a disk that others use too would take a minute for what is to be compared."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from turns import cache, fim_environment, quick, run, table, turns, work

FILES = 5_000 if quick else 20_000
place = work / "write"
ARCHIVE = place / "many.tar"
IMAGE = str(cache / "write.flatimage")
tree = str(cache / "write")

# What is done, in a directory that is empty but for the tree below; {0} is that directory.
TASKS = [
    (f"Unpacking {FILES:,} small files", "mkdir {0}/t && tar -x -C {0}/t", ARCHIVE),
    ("Removing them", "rm -r {0}/t", None),
    ("Writing 512 MiB (dd, 1 MiB at a time)", "dd if=/dev/zero of={0}/f bs=1M count=512 status=none", None),
    ("Cloning a git repository", "git clone -q --no-hardlinks {0}/repository {0}/clone", None),
    ("Appending to 1,000 files of the tree below", "find {0}/usr/share -type f | head -n 1000 |"
     " while read -r name; do echo >>$name; done", None),
]


# What is run for them, without doing anything.
PROGRAMS = "for name in tar rm dd git find head; do $name --version; done >/dev/null 2>&1"


def archive():
    with tarfile.open(ARCHIVE, "w") as tar:
        for number in range(FILES):
            content = f"{number}\n".encode() * 40
            member = tarfile.TarInfo(f"{number // 1000}/{number}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def perform(words, script, stdin, env=None):
    stream = open(stdin, "rb") if stdin else subprocess.DEVNULL
    begin = time.monotonic()
    done = subprocess.run([*words, "sh", "-c", script], stdin=stream, capture_output=True, text=True, env=env)
    took = time.monotonic() - begin
    if done.returncode != 0:
        sys.exit(f"bench: {script}: status {done.returncode}: {done.stderr.strip()}")
    return took * 1e3


def fim(overlay):
    def turn():
        data = place / "data"
        env = dict(fim_environment(), FIM_DIR_DATA=str(data), FIM_OVERLAY=overlay, HOME="/", GIT_CONFIG_NOSYSTEM="1")
        # Git takes no repository of another owner.
        env.update(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
        # A session that lives, so that its beginning is not what is measured; with the programs in memory, as the
        # host's are, which the peers run.
        hold = subprocess.Popen([IMAGE, "fim-exec", "sh", "-c", PROGRAMS + "; echo; cat"], env=env,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        hold.stdout.readline()
        times = [perform([IMAGE, "fim-exec"], script.format(""), stdin, env) for _, script, stdin in TASKS]
        hold.communicate()
        # The session writes back what is left before it lets go of the data.
        run(["flock", str(data / "session.lock"), "true"])
        shutil.rmtree(data)
        return times
    return turn


def mounted(command, archive=None):
    """An overlay above the tree, or above the kernel's mount of the archive of fim's image."""
    def turn():
        peer = place / "peer"
        for name in ("upper", "work", "merged", "lower"):
            (peer / name).mkdir(parents=True)
        merged, lower = str(peer / "merged"), tree
        if archive:
            lower = str(peer / "lower")
            run(["mount", "-t", "squashfs", "-o", "loop,ro", archive, lower])
        run([word.format(lower=lower, place=peer) for word in command])
        try:
            times = [perform([], script.format(merged), stdin) for _, script, stdin in TASKS]
        finally:
            run(["umount", merged])
            if archive:
                run(["umount", lower])
        shutil.rmtree(peer)
        return times
    return turn


def plain():
    copy = place / "plain"
    run(["cp", "-a", tree, str(copy)])
    times = [perform([], script.format(copy), stdin) for _, script, stdin in TASKS]
    shutil.rmtree(copy)
    return times


# The level of fim-layer, and what zstd calls it.
LEVEL, ZSTD = "4", "7"
COPIES = 1 if quick else 3


def copies(root, count):
    """Copies of the tree below the directory. All but the first have every byte moved by some, so that they compress as
    well and share nothing."""
    root.mkdir()
    for number in range(count):
        copy = root / str(number)
        run(["cp", "-a", tree, str(copy)])
        moved = bytes((byte + number) % 256 for byte in range(256))
        for directory, _, names in os.walk(copy) if number else ():
            for file in (Path(directory, name) for name in names):
                if file.is_file() and not file.is_symlink():
                    file.write_bytes(file.read_bytes().translate(moved))


def committed():
    """Seconds of a commit, and of mksquashfs on the same files."""
    data, layer = place / "data", place / "new.layer"
    env = dict(fim_environment(), FIM_DIR_DATA=str(data))
    run([IMAGE, "fim-exec", "true"], env=env)
    run(["flock", str(data / "session.lock"), "true"])
    shutil.rmtree(data / "root")
    copies(data / "root", COPIES)
    begin = time.monotonic()
    run(["mksquashfs", str(data / "root"), str(layer), "-noappend", "-quiet", "-no-progress", "-comp", "zstd",
         "-b", "131072", "-Xcompression-level", ZSTD])
    theirs = time.monotonic() - begin
    layer.unlink()
    begin = time.monotonic()
    run([IMAGE, "fim-layer", "commit", "file", str(layer), "--level", LEVEL], env=env)
    ours = time.monotonic() - begin
    layer.unlink()
    shutil.rmtree(data)
    return ours, theirs


LAYERS = "lowerdir={lower},upperdir={place}/upper,workdir={place}/work"
KERNEL = ["mount", "-t", "overlay", "-o", LAYERS, "none", "{place}/merged"]
ROWS = [
    ("**fim**, userspace overlay", fim("unionfs")),
    ("**fim**, kernel overlay", fim("bwrap")),
    ("plain directory", plain),
    ("kernel overlay", mounted(KERNEL)),
    ("kernel overlay on kernel squashfs", mounted(KERNEL, str(cache / "write.sqfs"))),
    ("fuse-overlayfs", mounted(["fuse-overlayfs", "-o", LAYERS, "{place}/merged"])),
    ("unionfs-fuse", mounted(["unionfs-fuse", "-o", "cow", "{place}/upper=RW:{lower}=RO", "{place}/merged"])),
]


def write():
    place.mkdir()
    # In a mount namespace of the run.
    run(["mount", "-t", "tmpfs", "-o", "size=6g,mode=755", "none", str(place)])
    try:
        archive()
        results = turns(ROWS, 1 if quick else 3, 0 if quick else 1)
        commits = [committed() for _ in range(1 if quick else 3)]
    finally:
        run(["umount", "-l", str(place)])
    for index, (title, _, _) in enumerate(TASKS):
        table(title, [(name, [times[index] for times in values]) for name, values in results], "ms", "less", 0)
    size = COPIES * int(run(["du", "-sm", "--apparent-size", tree]).split()[0])
    names = (f"**fim-layer commit**, level {LEVEL}", f"mksquashfs, zstd {ZSTD}")
    rows = [(name, [both[index] for both in commits]) for index, name in enumerate(names)]
    table(f"Making a layer of {size} MiB that were written", rows, "s", "less", 2)
