"""The section `read`: throughput and latency of the mount."""

from pathlib import Path

from containers import Held
from turns import cache, data_directory, fim_environment, measure, mount_point, quick, rotated, run, table

KERNEL = ["mount", "-t", "squashfs", "-o", "loop,ro"]
PEERS = [
    ("kernel squashfs", KERNEL, False),
    ("kernel squashfs, kernel overlay on it", KERNEL, True),
    ("squashfuse_ll", ["squashfuse_ll"], False),
]


def on_fim(image, *words):
    return run([str(cache / image), "fim-exec", "/measure", *words], env=fim_environment()).split()


def below_the_overlay(image, *words):
    """On fim's mount of the layers, which the peers' mounts are to be compared with."""
    env = fim_environment()
    with Held([str(cache / image), "fim-exec", "/measure", "hold"], env=env):
        # docs/ARCHITECTURE.md: the second line of the session's record begins with the server's PID.
        record = Path(env["FIM_DIR_DATA"], "session.lock").read_text().splitlines()
        layer = f"{record[-1]}/layers/0"
        words = [layer + word if word.startswith("/") else word for word in words]
        server = record[1].split()[0]
        return run(["nsenter", "--user", "--mount", "--target", server, measure, *words]).split()


def mounted(command, overlaid, archive, *words):
    run([*command, str(cache / archive), mount_point])
    try:
        if overlaid:
            data = data_directory()
            options = f"lowerdir={mount_point},upperdir={data}/root,workdir={data}/work"
            run(["mount", "-t", "overlay", "-o", options, "none", mount_point])
        words = [mount_point + word if word.startswith("/") else word for word in words]
        return run([measure, *words]).split()
    finally:
        for _ in range(1 + overlaid):
            run(["umount", mount_point])


def everywhere(image):
    """The rows: fim, then each peer, each on a fresh mount. The archive itself is in the page cache."""
    archive = image.replace(".flatimage", ".sqfs")
    yield "**fim**", lambda *words: on_fim(image, *words)
    yield "**fim**, below its overlay", lambda *words: below_the_overlay(image, *words)
    for name, command, overlaid in PEERS:
        yield name, lambda *words, peer=(command, overlaid): mounted(*peer, archive, *words)


def in_memory(image):
    for file in (image, image.replace(".flatimage", ".sqfs")):
        with open(cache / file, "rb") as stream:
            while stream.read(1 << 20):
                pass


def gather(rounds, image, *words):
    rows = list(everywhere(image))
    results = {name: [] for name, _ in rows}
    for turn in range(rounds):
        in_memory(image)
        for name, function in rotated(rows, turn):
            results[name].append([float(word) for word in function(*words)])
    return results


def read():
    rounds = 2 if quick else 10
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
