//! The commands that read and change the configuration. The first lines of each are FlatImage's.

use super::{Spec, Usage};

const JSON: (&str, &str) = ("--json", "Print JSON");
pub(super) const INHERIT: Usage = Usage {
    line: "<inherit>",
    words: &[("inherit", "With an instance key: has this setting follow the image again (see fim-key)")],
};
const RUNNING: &str = "Instances that run keep what they were started with.";

pub(super) const PERMS: Spec = Spec {
    name: "perms",
    summary: "Edit current permissions for the flatimage",
    usages: &[
        Usage {
            line: "<add|del|set> <perms...>",
            words: &[
                ("add", "Allow one or more permissions"),
                ("del", "Delete one or more permissions"),
                ("set", "Replace all permissions with the specified set"),
                ("perms...", "One or more permissions, separated by commas"),
            ],
        },
        Usage {
            line: "<list|clear> [--json]",
            words: &[("list", "Lists the current permissions"), ("clear", "Clears all permissions"), JSON],
        },
        Usage {
            line: "<explain> [--json]",
            words: &[("explain", "Shows what a start would share with the guest now, and why"), JSON],
        },
        INHERIT,
    ],
    notes: &[
        "Permissions: all,audio,certs,dbus_system,dbus_user,dev,fonts,gpu,home,input,locale,media,network,optical,shm,udev,usb,wayland,xorg",
        "The 'all' permission sets all available permissions and cannot be combined with other permissions",
        "Nothing is granted by default. 'all' does not include the portal (fim-portal).",
        "dbus_user and dbus_system go through a filter where the host has xdg-dbus-proxy. FIM_DBUS_TALK, FIM_DBUS_OWN and FIM_DBUS_SYSTEM_TALK, stored with fim-env or set by the caller, add names to it, separated by commas. A name that an instance of another installation may own is refused at the start.",
        "What a permission names and the host lacks is passed over; 'explain' shows it.",
        RUNNING,
    ],
    examples: &["fim-perms add home,network,gpu", "fim-perms set wayland,audio,network", "fim-perms explain"],
    frees_file: true,
};

pub(super) const ENV: Spec = Spec {
    name: "env",
    summary: "Define environment variables in FlatImage",
    usages: &[
        Usage {
            line: "<add|set> <'key=value'...>",
            words: &[
                ("add", "Include a novel environment variable"),
                ("set", "Redefines the environment variables as the input arguments"),
                ("'key=value'...", "List of variables to add or set"),
            ],
        },
        Usage {
            line: "<del> <keys...>",
            words: &[
                ("del", "Delete one or more environment variables"),
                ("keys...", "List of variable names to delete"),
            ],
        },
        Usage {
            line: "<list|clear> [--json]",
            words: &[
                ("list", "Lists configured environment variables"),
                ("clear", "Clears configured environment variables"),
                ("--json", "Print a JSON object of the values as they are stored"),
            ],
        },
        INHERIT,
    ],
    notes: &[
        "$NAME and ${NAME} in a value are replaced at each start, by the caller's variables and by those stored before it; blanks are kept. $(command) is run, on the host, when FIM_ENV_EXEC=1 is set for the start, and stays as it is otherwise.",
        "UID, GID, USER, HOME, SHELL and PS1 define who the guest's user is.",
        RUNNING,
    ],
    examples: &["fim-env add 'APP_NAME=hello-world' 'HOME=/home/my-app'", "fim-env del APP_NAME HOME"],
    frees_file: true,
};

pub(super) const BIND: Spec = Spec {
    name: "bind",
    summary: "Bind paths from the host to inside the container",
    usages: &[
        Usage {
            line: "<add> [--required] <type> <src> <dst>",
            words: &[
                ("add", "Create a novel binding of type <type> from <src> to <dst>"),
                (
                    "--required",
                    "A missing <src> is an error of the start; without it, it is passed over with a warning",
                ),
                ("type", "ro, rw, dev"),
                ("src", "A file, directory, or device"),
                ("dst", "A file, directory, or device"),
            ],
        },
        Usage {
            line: "<del> <index>",
            words: &[
                ("del", "Deletes a binding with the specified index; those behind it move up"),
                ("index", "Index of the binding to erase"),
            ],
        },
        Usage { line: "<list> [--json]", words: &[("list", "Lists current bindings"), JSON] },
        INHERIT,
    ],
    notes: &[
        "$NAME, ${NAME} and a leading ~ in <src> and <dst> are replaced at each start.",
        "'ro' is read-only with everything mounted below; device nodes can be opened through 'dev' only.",
        RUNNING,
    ],
    examples: &["fim-bind add ro '$HOME/Music' /Music", "fim-bind add dev /dev/video0 /dev/video0"],
    frees_file: true,
};

pub(super) const BOOT: Spec = Spec {
    name: "boot",
    summary: "Configure the default startup command",
    usages: &[
        Usage {
            line: "<set> <command> [args...]",
            words: &[
                ("set", "Execute <command> with optional [args] when FlatImage is launched"),
                ("command", "Startup command"),
                ("args...", "Arguments for the startup command"),
            ],
        },
        Usage {
            line: "<show|clear>",
            words: &[("show", "Displays the current startup command"), ("clear", "Clears the set startup command")],
        },
        INHERIT,
    ],
    notes: &["Without a startup command, the image's bash is started, or its sh where it has no bash."],
    examples: &["fim-boot set echo test"],
    frees_file: true,
};

pub(super) const UNSHARE: Spec = Spec {
    name: "unshare",
    summary: "Configure namespace unsharing options for isolation",
    usages: &[
        Usage {
            line: "<add|del|set> <options...>",
            words: &[
                ("add", "Enable one or more unshare options"),
                ("del", "Remove one or more unshare options"),
                ("set", "Replace all unshare options with the specified set"),
                ("options...", "One or more unshare options (comma-separated)"),
            ],
        },
        Usage {
            line: "<list|clear> [--json]",
            words: &[("list", "Lists the current unshare options"), ("clear", "Clears all unshare options"), JSON],
        },
        INHERIT,
    ],
    notes: &[
        "Unshare options: all,user,ipc,pid,net,uts,cgroup",
        "The 'all' option enables all available unshare options and cannot be combined with others",
        "The options are kept for scripts. An instance always has namespaces of its own of every kind; only the permission network shares one, that of the network, and 'net' does not take it back.",
    ],
    examples: &["fim-unshare add ipc,pid", "fim-unshare set user,ipc,net"],
    frees_file: true,
};

pub(super) const OVERLAY: Spec = Spec {
    name: "overlay",
    summary: "Show or select the default overlay filesystem",
    usages: &[
        Usage {
            line: "<set> <overlayfs|unionfs|bwrap>",
            words: &[
                ("set", "Sets the default overlay filesystem to use"),
                ("overlayfs", "A userspace overlay"),
                ("unionfs", "A userspace union"),
                ("bwrap", "The kernel's overlayfs (the name is FlatImage's)"),
            ],
        },
        Usage { line: "<show> [--json]", words: &[("show", "Shows the current overlay filesystem"), JSON] },
        INHERIT,
    ],
    notes: &[
        "FIM_OVERLAY goes before what is set. overlayfs and unionfs are the same overlay of fim's own; it also takes over \
         where the kernel refuses its own, and when fim-casefold is on.",
    ],
    examples: &["fim-overlay set bwrap"],
    frees_file: true,
};

pub(super) const NOTIFY: Spec = Spec {
    name: "notify",
    summary: "Notify with 'notify-send' when the program starts",
    usages: &[
        Usage {
            line: "<on|off>",
            words: &[
                ("on", "Turns on notify-send to signal the application start"),
                ("off", "Turns off notify-send to signal the application start"),
            ],
        },
        INHERIT,
    ],
    notes: &["A start is announced once desktop integration has been set up, and where the host has notify-send."],
    examples: &["fim-notify on"],
    frees_file: true,
};

pub(super) const CASEFOLD: Spec = Spec {
    name: "casefold",
    summary: "Enables casefold for the filesystem (ignore case)",
    usages: &[Usage { line: "<on|off>", words: &[("on", "Enables casefold"), ("off", "Disables casefold")] }, INHERIT],
    notes: &[
        "Names keep the case they were made with, and an exact match comes before any other.",
        "Takes fim's own overlay (fim-overlay). FIM_CASEFOLD=1 turns it on for one start.",
    ],
    examples: &["fim-casefold on"],
    frees_file: true,
};

pub(super) const REMOTE: Spec = Spec {
    name: "remote",
    summary: "Configure the remote URL for recipes",
    usages: &[
        Usage { line: "<set> <url>", words: &[("set", "Set the remote URL"), ("url", "The remote URL to configure")] },
        Usage { line: "<show> [--json]", words: &[("show", "Display the current remote URL"), JSON] },
        Usage { line: "<clear>", words: &[("clear", "Clear the configured remote URL")] },
        Usage {
            line: "<fetch> <path> [--digest <hex>] [--yes]",
            words: &[
                (
                    "fetch",
                    "Fetch the image at this path below the remote URL, unless it was before, and print where it is kept",
                ),
                ("path", "As the default provider of a plug has it"),
                ("--digest", "Digest that the file must have, as b3sum prints it; when not given, that of the plug"),
                ("--yes", "Do not ask; for any start with FIM_FETCH=1"),
            ],
        },
        INHERIT,
    ],
    notes: &[
        "The URL begins with https://, http:// (both fetched by curl or wget of the host) or file:///.",
        "A start that needs a default provider asks on the terminal before it is fetched. It is kept in the data directory and used only with the digest of the plug or, where the plug has none, when it is signed by this image's publisher. What was cut off goes on where it was.",
    ],
    examples: &["fim-remote set https://updates.example.com/repo"],
    frees_file: true,
};
