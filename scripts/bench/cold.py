"""The section `cold`: first starts when nothing is in the kernel's caches."""

import os

from start import bwrap_on, squashfs_start, squashfuse_start
from turns import fim_environment, image, quick, spawn, table, tree, turns


def forgotten(function):
    """The function, called when the kernel has forgotten pages, names and inodes of everything."""

    def cold():
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        # The measuring program itself is not measured.
        spawn(["/bin/true"])
        return function()

    return cold


def cold():
    env = fim_environment()
    rows = [
        ("**fim-exec /bin/true, first start**", lambda: spawn([image, "fim-exec", "/bin/true"], env)),
        ("bwrap --unshare-all on the unpacked tree", lambda: spawn(bwrap_on(tree))),
        ("squashfuse_ll, bwrap, umount", squashfuse_start),
        ("kernel squashfs on a loop device, bwrap, umount", squashfs_start),
    ]
    rows = [(name, forgotten(function)) for name, function in rows]
    title = "Start to exit of `/bin/true`, caches dropped before each turn"
    table(title, turns(rows, 3 if quick else 15, 1), "ms", "less", 2)
