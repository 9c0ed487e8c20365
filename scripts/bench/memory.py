"""The section `memory`: what the mount server has for itself, as the tree is read."""

import subprocess
import time

from containers import Held
from processes import descendants, fields, name
from turns import cache, fim_environment, image, measure, mount_point, quick, run

MIB = 1 << 20
AFTER_TRUE, AFTER_ALL = "`/bin/true`", "everything was read"
BOUNDS = {AFTER_TRUE: 6, AFTER_ALL: 96}


def private_dirty(pid):
    return fields(f"/proc/{pid}/smaps_rollup", ["Private_Dirty"])[0]


class Server:
    """A file server: its process, and commands of the measuring program and of the tree that read through it."""

    env = None

    def peak(self, *words):
        """Bytes at most while the measuring program reads, looked at every few milliseconds."""
        reader = subprocess.Popen(self.reader(*words), stdout=subprocess.DEVNULL, env=self.env)
        most = 0
        while reader.poll() is None:
            most = max(most, private_dirty(self.pid))
            time.sleep(0.005)
        if reader.returncode != 0:
            raise SystemExit(f"bench: {reader.args}: status {reader.returncode}")
        return max(most, private_dirty(self.pid))


class Fim(Server):
    true = [image, "fim-exec", "/bin/true"]

    def __enter__(self):
        self.env = fim_environment()
        self.held = Held([image, "fim-exec", "/measure", "hold"], env=self.env)
        starter = self.held.__enter__()
        self.pid = next(pid for pid in descendants(starter.pid) if name(pid) == "fim-mount")
        return self

    def reader(self, *words):
        return [image, "fim-exec", "/measure", *words]

    def __exit__(self, *reason):
        self.held.__exit__(*reason)


class Squashfuse(Server):
    true = ["chroot", mount_point, "/bin/true"]

    def __enter__(self):
        archive = str(cache / "debian.sqfs")
        self.process = subprocess.Popen(["squashfuse_ll", "-f", archive, mount_point], stderr=subprocess.DEVNULL)
        while not subprocess.run(["mountpoint", "-q", mount_point]).returncode == 0:
            if self.process.poll() is not None:
                raise SystemExit("bench: squashfuse_ll ended at once")
            time.sleep(0.005)
        self.pid = self.process.pid
        return self

    def reader(self, *words):
        return [measure, *(mount_point + word if word.startswith("/") else word for word in words)]

    def __exit__(self, *_):
        run(["umount", mount_point])
        self.process.wait()


def memory():
    print("\n### Memory that the file server has for itself (`Private_Dirty`), most of all turns\n")
    print("| after | bound MiB | fim MiB | squashfuse_ll MiB |\n|---|---:|---:|---:|")
    rounds = 1 if quick else 3
    rows = [(AFTER_TRUE, None)] + [
        (f"everything was read, {readers} reader{'s' if readers > 1 else ''}", readers) for readers in (1, 2, 64)
    ]
    for what, readers in rows:
        most = {}
        for _ in range(rounds):
            for peer in (Fim, Squashfuse):
                with peer() as server:
                    if readers is None:
                        run(server.true, env=server.env)
                        seen = private_dirty(server.pid)
                    else:
                        seen = server.peak("tree", "/", str(readers), "1")
                most[peer] = max(most.get(peer, 0), seen)
        bound = BOUNDS[AFTER_TRUE if readers is None else AFTER_ALL]
        print(f"| {what} | {bound} | {most[Fim] / MIB:.1f} | {most[Squashfuse] / MIB:.1f} |", flush=True)
