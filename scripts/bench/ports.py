"""The section `ports`: a server behind a published port."""

import os
import shutil
import subprocess

from containers import PODMAN, Held
from turns import cache, fim_environment, image, quick, run, table, tree, turns, work

network = str(cache / "network")
DIRECT, PUBLISHED, PEER = 18480, 18481, 18482


class Engine:
    """The server in a container whose port is published by a network in user space."""

    name = "fim-bench-ports"

    def __enter__(self):
        shutil.copy(network, os.path.join(tree, "network"))
        options = ["--cgroups=disabled", "--network=slirp4netns", f"--publish=127.0.0.1:{PEER}:80", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
        run([*PODMAN, "run", "--detach", "--name", self.name, *options, "--rootfs", tree, "/network", "serve", "80"])
        # Its line is in the log when it listens.
        logs = subprocess.Popen([*PODMAN, "logs", "--follow", self.name], stdout=subprocess.PIPE)
        logs.stdout.readline()
        logs.kill()
        logs.wait()

    def __exit__(self, *_):
        run([*PODMAN, "rm", "--force", "--time", "0", self.name])
        os.remove(os.path.join(tree, "network"))


def ports():
    env = fim_environment()
    shutil.copy(network, os.path.join(env["FIM_DIR_DATA"], "root", "network"))
    published = str(work / "ports.flatimage")
    shutil.copy(image, published)
    run([published, "fim-port", "publish", f"{PUBLISHED}:80"])
    with (
        Held([network, "serve", str(DIRECT)]) as direct,
        Held([published, "fim-exec", "/network", "serve", "80"], env=env) as instance,
        Engine(),
    ):
        places = [("**a published port**", PUBLISHED), ("the host's loopback alone", DIRECT), ("podman with slirp4netns", PEER)]
        measured = lambda verb, port, number: float(run([network, verb, str(port), str(number)]))
        for title, verb, number, unit, better, digits in [
            ("Bytes from the server to one client", "fetch", (1 if quick else 4) << 30, "MB/s", "more", 0),
            ("One byte and its answer, in one connection", "ask", 2000, "µs", "less", 1),
            ("A connection, one byte and its answer", "connect", 500, "µs", "less", 0),
        ]:
            rows = [(name, lambda port=port: measured(verb, port, number)) for name, port in places]
            table(title, turns(rows, 3 if quick else 11, 1), unit, better, digits)
        for process in (direct, instance):
            process.terminate()
