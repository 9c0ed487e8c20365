"""The section `ports`: a server behind a published port."""

import os
import shutil
import subprocess
import sys
import time

from containers import PODMAN
from turns import cache, fim_environment, image, quick, run, table, tree, turns, work

network = str(cache / "network")
DIRECT, PUBLISHED, PEER = 18480, 18481, 18482


class Server:
    """A command that says a line when it listens, and is ended."""

    def __init__(self, words, env=None):
        self.process = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def __enter__(self):
        if not self.process.stdout.readline():
            sys.exit(f"bench: {self.process.args}: ended at once")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class Engine:
    """The server in a container whose port is published by a network in user space."""

    name = "fim-bench-ports"
    options = ["--cgroups=disabled", "--network=slirp4netns", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]

    def __enter__(self):
        shutil.copy(network, os.path.join(tree, "network"))
        publish = f"--publish=127.0.0.1:{PEER}:80"
        start = [*PODMAN, "run", "--detach", "--name", self.name, *self.options, publish, "--rootfs", tree]
        # What forwards the port keeps whatever streams it is started with.
        subprocess.run([*start, "/network", "serve", "80"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(100):
            if subprocess.run([network, "ask", str(PEER), "1"], capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        sys.exit("bench: the server in the container does not answer")

    def __exit__(self, *_):
        run([*PODMAN, "rm", "--force", "--time", "0", self.name])
        os.remove(os.path.join(tree, "network"))


def ports():
    env = fim_environment()
    shutil.copy(network, os.path.join(env["FIM_DIR_DATA"], "root", "network"))
    published = str(work / "ports.flatimage")
    shutil.copy(image, published)
    run([published, "fim-port", "publish", f"{PUBLISHED}:80"])
    direct = Server([network, "serve", str(DIRECT)])
    instance = Server([published, "fim-exec", "/network", "serve", "80"], env)
    places = [("**a published port**", PUBLISHED), ("the host's loopback alone", DIRECT), ("podman with slirp4netns", PEER)]
    measured = lambda verb, port, number: float(run([network, verb, str(port), str(number)]))
    with direct, instance, Engine():
        for title, verb, number, unit, better, digits in [
            ("Bytes from the server to one client", "fetch", (1 if quick else 4) << 30, "MB/s", "more", 0),
            ("One byte and its answer, in one connection", "ask", 2000, "µs", "less", 1),
            ("A connection, one byte and its answer", "connect", 500, "µs", "less", 0),
        ]:
            rows = [(name, lambda port=port: measured(verb, port, number)) for name, port in places]
            table(title, turns(rows, 3 if quick else 11, 1), unit, better, digits)
