#!/usr/bin/env python3
"""Writes boot/src/dependencies.json, which `fim-version deps` prints: every crate and library that is linked into the
program. With --check it says whether the file is current instead.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

top = Path(__file__).resolve().parent.parent
target = top / "boot/src/dependencies.json"

# C libraries that come with no crate: libsquashfs of Debian's libsquashfs-dev, and the C library of the toolchain.
libraries = {
    "libsquashfs": ("LGPL-3.0-or-later", "https://github.com/AgentD/squashfs-tools-ng", "the build host's"),
}


def licenses(expression):
    names = sorted({word for word in re.findall(r"[^\s()/]+", expression) if word not in ("AND", "OR", "WITH")})
    return [{"type": name, "url": f"https://spdx.org/licenses/{name}.html"} for name in names]


command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]
metadata = json.loads(subprocess.run(command, cwd=top, check=True, stdout=subprocess.PIPE).stdout)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
checksums = {
    (package["name"], package["version"]): package.get("checksum", "")
    for package in tomllib.loads((top / "Cargo.lock").read_text())["package"]
}


def is_macro(package):
    return any("proc-macro" in one["kind"] for one in package["targets"])


# Everything that is linked: normal dependencies, but for macros, which only the compiler runs.
linked, todo = set(), [metadata["resolve"]["root"]]
while todo:
    identity = todo.pop()
    if identity in linked or is_macro(packages[identity]):
        continue
    linked.add(identity)
    for dependency in nodes[identity]["deps"]:
        if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
            todo.append(dependency["pkg"])

result = {
    name: {"licenses": licenses(license), "sha": "", "source": source, "version": version}
    for name, (license, source, version) in libraries.items()
}
found = [packages[identity] for identity in linked if packages[identity]["source"] is not None]
for package in found:
    name, version = package["name"], package["version"]
    if sum(other["name"] == name for other in found) > 1:
        name = f"{name}@{version}"
    result[name] = {
        "licenses": licenses(package["license"]),
        "sha": checksums[(package["name"], version)],
        "source": package["repository"] or package["homepage"] or "",
        "version": version,
    }
text = json.dumps(result, indent=2, sort_keys=True) + "\n"
if sys.argv[1:] == ["--check"]:
    if not target.exists() or target.read_text() != text:
        sys.exit(f"dependencies: {target} is not current; run scripts/dependencies.py")
else:
    target.write_text(text)
