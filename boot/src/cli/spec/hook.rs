//! The command about turns of an installation's life.

use super::{Spec, Usage};

pub(super) const HOOK: Spec = Spec {
    name: "hook",
    summary: "Have the image run commands when it is installed, configured and removed",
    usages: &[
        Usage {
            line: "<set> <install|configure|remove> <command...>",
            words: &[
                ("set", "Store the command in the image"),
                ("install", "Before anything else of an installation runs for the first time"),
                ("configure", "After that, and whenever 'run configure' asks for it"),
                ("remove", "Before fim-key remove removes an installation"),
                ("command...", "The program in the image, and its arguments"),
            ],
        },
        Usage { line: "<list> [--json]", words: &[("list", "Lists the hooks"), ("--json", "Print a JSON object")] },
        Usage {
            line: "<clear> [install|configure|remove]",
            words: &[("clear", "Take a hook out of the image, or all of them")],
        },
        Usage { line: "<run> <configure|remove>", words: &[("run", "Run a hook of this installation now")] },
    ],
    notes: &[
        "Hooks run as fim-exec does, with the layouts, data and permissions of the installation. They read nothing, and what they print goes to stderr.",
        "When install or the first configure fails or is interrupted, nothing of the installation is kept, the command that was to run does not, and the next start runs the hooks again on what was packed. What was set for a key stays.",
        "An installation that has run a command before the image got its hooks counts as installed. fim-key reset and fim-data clear undo that. Throw-away starts run no hooks.",
    ],
    examples: &["fim-hook set install sh -c 'mkdir \"$FIM_DATA/log\"'", "fim-hook run configure"],
    frees_file: true,
};
