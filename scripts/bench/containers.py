"""The peers that keep something running, and fim doing so."""

import json
import subprocess

from turns import run, tree, work

CRUN = ["crun", "--cgroup-manager=disabled"]
PODMAN = ["podman", "--cgroup-manager=cgroupfs"]
PODMAN_OPTIONS = ["--cgroups=disabled", "--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]


def crun_bundle(name, words):
    """A bundle of the unpacked tree that runs `words`."""
    bundle = work / f"bundle-{name}"
    bundle.mkdir()
    run(["crun", "spec"], cwd=bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["root"] = {"path": tree, "readonly": False}
    config["process"].update(terminal=False, args=words)
    config["process"].pop("rlimits", None)
    (bundle / "config.json").write_text(json.dumps(config))
    return str(bundle)


class Held:
    """A command that says a line when it runs, and ends with its input."""

    def __init__(self, words, env=None):
        self.process = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        if not self.process.stdout.readline():
            raise SystemExit(f"bench: {self.process.args}: ended at once")
        return self.process

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


class Crun:
    """A container of crun that sleeps."""

    def __init__(self, name):
        self.name = f"fim-bench-{name}"
        self.bundle = crun_bundle(name, ["/bin/sleep", "1000000"])

    def __enter__(self):
        start = [*CRUN, "run", "--detach", "-b", self.bundle, self.name]
        subprocess.run(start, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return self

    def exec(self, *words):
        return [*CRUN, "exec", self.name, *words]

    def __exit__(self, *_):
        run([*CRUN, "delete", "--force", self.name])


class Podman:
    """A container of podman that sleeps.

    A command in it is cleaned up after for a second, beside whatever comes next, so that podman has turns of its own.
    """

    def __init__(self, name):
        self.name = f"fim-bench-{name}"

    def __enter__(self):
        rootfs = ["--rootfs", tree, "/bin/sleep", "1000000"]
        run([*PODMAN, "run", "--detach", "--name", self.name, *PODMAN_OPTIONS, *rootfs])
        return self

    def exec(self, *words):
        return [*PODMAN, "exec", "--interactive", self.name, *words]

    def __exit__(self, *_):
        run([*PODMAN, "rm", "--force", "--time", "0", self.name])
