"""Takes the turns of scripts/bench.sh and prints the tables. Arguments: the cache directory, [--quick], sections."""

import os
import platform
import shutil
import subprocess
import sys

from build import build
from calls import calls
from cold import cold
from commands import exec_section, pipe_section
from content import content
from instances import instances_section
from instructions import instructions
from layers import layers
from layouts import layouts
from memory import memory
from ports import ports
from read import read
from settings import settings
from size import size
from start import start
from turns import mount_point, run, work
from write import write

SECTIONS = {
    "start": start,
    "read": read,
    "exec": exec_section,
    "pipe": pipe_section,
    "instances": instances_section,
    "settings": settings,
    "layers": layers,
    "layouts": layouts,
    "ports": ports,
    "content": content,
    "write": write,
    "cold": cold,
    "size": size,
    "memory": memory,
    "build": build,
    "calls": calls,
    "instructions": instructions,
}


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    version = lambda *words: run(list(words)).splitlines()[0].strip()
    commit = version("git", "rev-parse", "--short", "HEAD")
    print(f"fim {commit}, {os.cpu_count()} processors ({model}), Linux {platform.release()}.", end=" ")
    peers = [version("bwrap", "--version"), version("crun", "--version"), version("podman", "--version")]
    print(f"Peers: {', '.join(peers)}, squashfuse of Debian. Load when it began: {os.getloadavg()[0]:.1f}.")


chosen = [word for word in sys.argv[2:] if not word.startswith("-")] or list(SECTIONS)
unknown = [word for word in chosen if word not in SECTIONS]
if unknown:
    sys.exit(f"bench: there is no section {unknown[0]!r}; these are: {' '.join(SECTIONS)}")
try:
    machine()
    for section in chosen:
        SECTIONS[section]()
finally:
    subprocess.run(["umount", "-l", mount_point], stderr=subprocess.DEVNULL)
    shutil.rmtree(work, ignore_errors=True)
