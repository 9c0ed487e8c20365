//! The command about installations.

use super::{Spec, Usage};

pub(super) const KEY: Spec = Spec {
    name: "key",
    summary: "Manage several installations of this file",
    usages: &[
        Usage {
            line: "<run> <key> [args...]",
            words: &[
                ("run", "Run the image as the installation with this key"),
                ("key", "1 to 10 lower-case letters and digits"),
                ("args...", "A fim- command, or arguments of the boot command"),
            ],
        },
        Usage {
            line: "<add> <key> [--image <file>] [--unaliased]",
            words: &[
                ("add", "Make a link beside the image that starts this installation, and print its path"),
                ("--image", "Have the installation run another image, such as another version"),
                ("file", "That image"),
                ("--unaliased", "Make no launchers for the aliases that the image declares"),
            ],
        },
        Usage {
            line: "<list> [--json]",
            words: &[
                ("list", "Lists the keys: key, IDs of running instances and image, separated by colons"),
                ("--json", "Print a JSON array, with the settings that each has of its own"),
            ],
        },
        Usage {
            line: "<rename> <key> <key>",
            words: &[("rename", "Give an installation another key; its link is renamed, too")],
        },
        Usage {
            line: "<clone> <key> [key]",
            words: &[(
                "clone",
                "Make an installation with data and settings of another: the first, or with one key that which the command is run through",
            )],
        },
        Usage {
            line: "<reset> <key>",
            words: &[("reset", "Bring an installation back to what was packed: without data and settings of its own")],
        },
        Usage {
            line: "<remove> <key> [--force]",
            words: &[
                ("remove", "Remove an installation with its data, its settings, its aliases and its link"),
                ("--force", "Do without the remove hook of the image"),
            ],
        },
        Usage {
            line: "<revert> [key]",
            words: &[(
                "revert",
                "Use the files of the revision before again; without a key, of the installation that the command is run through",
            )],
        },
    ],
    notes: &[
        "An installation has data, settings and instances of its own. It needs no registration: a link named as the image with _KEY behind its name (app_foo.flatimage -> app.flatimage), the variable FIM_INSTANCE_KEY, and 'run' all name its key.",
        "Its data lies in .NAME.keys/KEY beside the image, in KEY of DATA/keys where FIM_DIR_DATA names DATA.",
        "Commands that change a setting change it for the key only, which has that setting for its own from then on; 'inherit' (fim-perms inherit) gives it up. Every other setting is the image's.",
        "Programs find files of the application at FIM_ROOT_DIR (read-only), and may keep files of their own at FIM_DATA and FIM_USER_DATA, which are copied when the image has other layers than before (a new revision), and at FIM_COMMON and FIM_USER_COMMON, which all revisions share. FIM_NAME, FIM_INSTANCE_NAME, FIM_INSTANCE_KEY and FIM_REVISION tell them what they are part of. The paths are the same for every key.",
        "An installation with running instances is not changed.",
    ],
    examples: &["fim-key run foo fim-exec echo hello", "fim-key add 29 --image ./juju-2.9.flatimage"],
    frees_file: false,
};
