"""The section `layouts`: starts with 50 layouts, beside starts with none."""

from containers import Held
from settings import copy_of
from turns import fim_environment, quick, run, spawn, table, turns, work

COUNT = 50
KINDS = {
    "symlink": ("/usr/lib/libplugin{0}.so", "symlink: $SNAP/usr/lib/os-release"),
    "bind": ("/var/lib/app/{0}", "bind: $SNAP_DATA/{0}"),
    "bind-file": ("/etc/app{0}.conf", "bind-file: $SNAP_DATA/{0}.conf"),
    "tmpfs": ("/var/cache/app/{0}", "type: tmpfs"),
}


def with_layouts(name, kinds):
    path = copy_of(f"{name}.flatimage")
    block = work / f"{name}.yaml"
    lines = ["layout:"]
    for index in range(COUNT):
        target, declaration = KINDS[kinds[index % len(kinds)]]
        lines += [f"  {target.format(index)}:", f"    {declaration.format(index)}"]
    block.write_text("\n".join(lines) + "\n")
    run([path, "fim-layout", "import", str(block)])
    return path


def layouts():
    true = ["fim-exec", "/bin/true"]

    def starts(path, env):
        return lambda: spawn([path, *true], env)

    plain, mixed = copy_of("plain.flatimage"), with_layouts("mixed", list(KINDS))
    rows = [("**first start without layouts**", starts(plain, fim_environment()))]
    for kind in KINDS:
        rows.append((f"first start, {COUNT} of type {kind}", starts(with_layouts(kind, [kind]), fim_environment())))
    rows.append((f"first start, {COUNT} of all types", starts(mixed, fim_environment())))
    rounds = 15 if quick else 51
    table("Starts with layouts", turns(rows, rounds, 3), "ms", "less", 2)

    joined_plain, joined_mixed = fim_environment(), fim_environment()
    hold = ["fim-exec", "/measure", "hold"]
    with Held([plain, *hold], env=joined_plain), Held([mixed, *hold], env=joined_mixed):
        rows = [
            ("**joining without layouts**", starts(plain, joined_plain)),
            (f"joining, {COUNT} of all types", starts(mixed, joined_mixed)),
        ]
        table("Joining with layouts", turns(rows, rounds, 3), "ms", "less", 2)
