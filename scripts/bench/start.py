"""The section `start`: from the start of a program to its exit."""

from containers import CRUN, PODMAN, PODMAN_OPTIONS, Held, crun_bundle
from turns import cache, fim_environment, image, mount_point, quick, spawn, table, tree, turns

USER = "63999"
ARCHIVE = str(cache / "debian.sqfs")


def bwrap_on(root):
    """/bin/true of a tree in a sandbox."""
    options = ["--dev", "/dev", "--proc", "/proc", "--unshare-all", "--die-with-parent"]
    return ["bwrap", "--ro-bind", root, "/", *options, "/bin/true"]


def mounted_start(*mount):
    """Mounts the archive, starts /bin/true of it in a sandbox, and unmounts it."""
    return spawn([*mount, ARCHIVE, mount_point, "++", *bwrap_on(mount_point), "++", "umount", mount_point])


def squashfuse_start():
    return mounted_start("squashfuse_ll")


def squashfs_start():
    return mounted_start("mount", "-t", "squashfs", "-o", "loop,ro")


def start():
    first, static, joined, other = fim_environment(), fim_environment(), fim_environment(), fim_environment(USER)
    other["HOME"] = "/"
    bundle = crun_bundle("start", ["/bin/true"])
    podman = [*PODMAN, "run", "--rm", *PODMAN_OPTIONS, "--rootfs", tree, "/bin/true"]
    as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    rows = [
        ("**fim-exec /bin/true, first start**", lambda: spawn([image, "fim-exec", "/bin/true"], first)),
        ("**fim-exec /bin/true, joining a session**", lambda: spawn([image, "fim-exec", "/bin/true"], joined)),
        ("fim-exec /bin/true, first start, as a user", lambda: spawn([image, "fim-exec", "/bin/true"], other, as_user)),
        ("fim-exec of a static program, first start", lambda: spawn([image, "fim-exec", "/measure", "nothing"], static)),
        ("fork and exec of the host's /bin/true", lambda: spawn(["/bin/true"])),
        ("bwrap --unshare-all on the unpacked tree", lambda: spawn(bwrap_on(tree))),
        ("squashfuse_ll, bwrap, umount", squashfuse_start),
        ("kernel squashfs on a loop device, bwrap, umount", squashfs_start),
        (
            "crun run on the unpacked tree",
            lambda: spawn([*CRUN, "run", "-b", bundle, "fim-bench"]),
        ),
    ]
    with Held([image, "fim-exec", "/measure", "hold"], env=joined):
        values = turns(rows, 9 if quick else 36, 2)
    # It goes on cleaning up when it has returned.
    values += turns([("podman run --rootfs on the unpacked tree", lambda: spawn(podman))], 5 if quick else 15, 1)
    table("Start to exit of `/bin/true`", values, "ms", "less", 2)
