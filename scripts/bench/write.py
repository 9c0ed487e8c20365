"""The section `write`: writing through the root, over each overlay and over their peers. All of them write to one tmpfs:
a disk that others use too would take a minute for what is to be compared."""

import io
import shutil
import subprocess
import sys
import tarfile
import time

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
        # A session that lives, so that its beginning is not what is measured.
        hold = subprocess.Popen([IMAGE, "fim-exec", "sh", "-c", "echo; cat"], env=env, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE)
        hold.stdout.readline()
        times = [perform([IMAGE, "fim-exec"], script.format(""), stdin, env) for _, script, stdin in TASKS]
        hold.communicate()
        # The session writes back what is left before it lets go of the data.
        run(["flock", str(data / "session.lock"), "true"])
        shutil.rmtree(data)
        return times
    return turn


def mounted(command):
    def turn():
        peer = place / "peer"
        for name in ("upper", "work", "merged"):
            (peer / name).mkdir(parents=True)
        merged = str(peer / "merged")
        run([word.format(lower=tree, place=peer) for word in command])
        try:
            times = [perform([], script.format(merged), stdin) for _, script, stdin in TASKS]
        finally:
            run(["umount", merged])
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


def committed():
    """Seconds of a commit, and of mksquashfs on the same files."""
    data, layer = place / "data", place / "new.layer"
    env = dict(fim_environment(), FIM_DIR_DATA=str(data))
    run([IMAGE, "fim-exec", "true"], env=env)
    run(["flock", str(data / "session.lock"), "true"])
    run(["cp", "-a", tree, str(data / "root")])
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
ROWS = [
    ("**fim**, userspace overlay", fim("unionfs")),
    ("**fim**, kernel overlay", fim("bwrap")),
    ("plain directory", plain),
    ("kernel overlay", mounted(["mount", "-t", "overlay", "-o", LAYERS, "none", "{place}/merged"])),
    ("fuse-overlayfs", mounted(["fuse-overlayfs", "-o", LAYERS, "{place}/merged"])),
    ("unionfs-fuse", mounted(["unionfs-fuse", "-o", "cow", "{place}/upper=RW:{lower}=RO", "{place}/merged"])),
]


def write():
    place.mkdir()
    # In a mount namespace of the run.
    run(["mount", "-t", "tmpfs", "-o", "size=6g,mode=755", "none", str(place)])
    try:
        archive()
        results = turns(ROWS, 1 if quick else 5, 0 if quick else 1)
        commits = [committed() for _ in range(1 if quick else 5)]
    finally:
        run(["umount", "-l", str(place)])
    for index, (title, _, _) in enumerate(TASKS):
        table(title, [(name, [times[index] for times in values]) for name, values in results], "ms", "less", 0)
    size = int(run(["du", "-sm", "--apparent-size", tree]).split()[0])
    names = (f"**fim-layer commit**, level {LEVEL}", f"mksquashfs, zstd {ZSTD}")
    rows = [(name, [both[index] for both in commits]) for index, name in enumerate(names)]
    table(f"Making a layer of {size} MiB that were written", rows, "s", "less", 2)
