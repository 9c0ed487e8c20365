#!/usr/bin/env python3
"""Checks licences, sources and bans of every crate that is linked, by the lists in deny.toml.

The part of `cargo deny check bans licenses sources` that a build machine without cargo-deny can do in a second;
cargo-deny itself takes minutes to compile.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

top = Path(__file__).resolve().parent.parent
rules = tomllib.loads((top / "deny.toml").read_text())
allowed = set(rules["licenses"]["allow"])
registries = {"registry+" + url for url in rules["sources"]["allow-registry"]}
banned = [entry["crate"].partition("@") for entry in rules["bans"]["deny"]]


def permitted(expression: str) -> bool:
    """Whether an SPDX expression can be met by the allowed licences; a slash is the old way to write OR."""
    words = re.findall(r"[()]|[^\s()/]+", expression.replace("/", " OR "))
    text = []
    for index, word in enumerate(words):
        if word in ("(", ")"):
            text.append(word)
        elif word in ("AND", "OR"):
            text.append(word.lower())
        elif word == "WITH" or words[index - 1 : index] == ["WITH"]:
            continue
        else:
            # A licence with an exception grants more than without, but only what is listed is allowed.
            exception = words[index + 1 : index + 2] == ["WITH"]
            text.append(str(word in allowed and not exception))
    return bool(eval(" ".join(text), {"__builtins__": {}}))  # only words made above


problems = []
for target in rules["graph"]["targets"]:
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=top, check=True, stdout=subprocess.PIPE).stdout)
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    for package in metadata["packages"]:
        if package["id"] not in used:
            continue
        name = f"{package['name']} {package['version']}"
        if not permitted(package["license"] or "none"):
            problems.append(f"{name}: licence {package['license']} is not allowed")
        if package["source"] is not None and package["source"] not in registries:
            problems.append(f"{name}: source {package['source']} is not allowed")
        for banned_name, _, version in banned:
            if package["name"] == banned_name and package["version"].startswith(version):
                problems.append(f"{name}: banned")
for problem in sorted(set(problems)):
    print(f"licenses: {problem}", file=sys.stderr)
sys.exit(1 if problems else 0)
