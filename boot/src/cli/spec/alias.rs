//! The command about names on the host.

use super::{Spec, Usage};

pub(super) const ALIAS: Spec = Spec {
    name: "alias",
    summary: "Reach commands of this installation by names of their own",
    usages: &[
        Usage {
            line: "<add> <name> [command...]",
            words: &[
                ("add", "Make a launcher that runs a command of this installation; arguments are passed on"),
                ("name", "Its name"),
                ("command...", "The command in the image; when not given, the image as it is started without one"),
            ],
        },
        Usage {
            line: "<list> [--json]",
            words: &[("list", "Lists the aliases of all installations of this file"), ("--json", "Print a JSON array")],
        },
        Usage { line: "<remove> <name>", words: &[("remove", "Remove an alias of any installation of this file")] },
        Usage {
            line: "<enable>",
            words: &[(
                "enable",
                "Make the launchers of everything that the image declares: INSTALLATION.NAME, and INSTALLATION for a NAME that is the application's own",
            )],
        },
        Usage {
            line: "<declare> <name> [command...]",
            words: &[("declare", "Store in the image that 'enable' and fim-key add make a launcher for this command")],
        },
        Usage { line: "<undeclare> <name>", words: &[("undeclare", "Take it out of the image")] },
    ],
    notes: &[
        "Launchers lie in $XDG_BIN_HOME, otherwise in ~/.local/bin. They are shell scripts that hold the path of the image: after it was moved, make them again.",
        "A name that another installation has, or any program in PATH, is refused. An alias of the same installation is replaced, and so is one whose image is no more.",
        "fim-key add makes the declared ones unless --unaliased is given; fim-key rename and remove take them along.",
    ],
    examples: &["fim-alias add bar_env env", "fim-alias declare env env"],
    frees_file: true,
};
