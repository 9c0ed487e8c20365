//! The commands of an image: the one definition that dispatch, help, man pages and completions are made from.

mod alias;
mod content;
mod hook;
mod key;
mod layers;
mod layout;
mod publisher;
mod services;
mod settings;

use std::ffi::{OsStr, OsString};

/// One way to use a command.
#[derive(Debug)]
pub struct Usage {
    /// What follows the command's name.
    pub line: &'static str,
    /// Each word of the line and what it is.
    pub words: &'static [(&'static str, &'static str)],
}

/// One command.
#[derive(Debug)]
pub struct Spec {
    /// Name without `fim-`.
    pub name: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// Ways to use it.
    pub usages: &'static [Usage],
    /// What else to know.
    pub notes: &'static [&'static str],
    /// Examples, without the image's name.
    pub examples: &'static [&'static str],
    /// Whether it runs something or changes the image, so that the image file must not be kept busy.
    pub frees_file: bool,
}

const DETACHED: Usage = Usage {
    line: "--detach <program> [args...]",
    words: &[(
        "--detach",
        "Print the ID of the instance and return once the program has started; its output goes to fim-instance logs",
    )],
};
const EPHEMERAL: Usage = Usage {
    line: "--ephemeral <program> [args...]",
    words: &[(
        "--ephemeral",
        "Keep what is written in memory, and drop it at the end; also for any start with FIM_EPHEMERAL=1",
    )],
};
const OPTIONS_ARE_FIRST: &str = "--detach and --ephemeral count in front of the program only. A program of that name is run by its path, or with env -- --detach.";

/// Every command, in the order of the overview.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "exec",
        summary: "Execute a command as a regular user",
        usages: &[
            Usage {
                line: "<program> [args...]",
                words: &[
                    ("program", "Name of the program to execute"),
                    ("args...", "Arguments for the executed program"),
                ],
            },
            DETACHED,
            EPHEMERAL,
        ],
        notes: &[
            "The program runs as the calling user, without any capability, isolated from the host.",
            "The exit code is the program's own: 127 when it is not found, 126 when it cannot be executed, 128+N when signal N ended it, 125 for an error of fim.",
            OPTIONS_ARE_FIRST,
        ],
        examples: &["fim-exec --detach sleep 1000", "fim-exec echo -e \"hello\\nworld\""],
        frees_file: true,
    },
    Spec {
        name: "root",
        summary: "Execute a command as the root user",
        usages: &[
            Usage {
                line: "<program> [args...]",
                words: &[
                    ("program", "Name of the program to execute"),
                    ("args...", "Arguments for the executed program"),
                ],
            },
            DETACHED,
            EPHEMERAL,
        ],
        notes: &[
            "The program is user 0 of its own user namespace; it has no privilege on the host.",
            OPTIONS_ARE_FIRST,
        ],
        examples: &["fim-root id -u"],
        frees_file: true,
    },
    key::KEY,
    alias::ALIAS,
    hook::HOOK,
    settings::PERMS,
    settings::ENV,
    settings::BIND,
    layout::LAYOUT,
    settings::BOOT,
    settings::UNSHARE,
    settings::OVERLAY,
    settings::NOTIFY,
    settings::CASEFOLD,
    settings::REMOTE,
    services::PORT,
    services::SERVICE,
    content::CONTENT,
    layers::LAYER,
    layers::OCI,
    layers::DATA,
    publisher::KEY_PAIR,
    publisher::SIGN,
    Spec {
        name: "instance",
        summary: "Manage running instances",
        usages: &[
            Usage {
                line: "<exec> <id> [args...]",
                words: &[
                    ("exec", "Run a command in a running instance"),
                    ("id", "ID of the instance in which to execute the command"),
                    ("args", "Arguments for the 'exec' command"),
                ],
            },
            Usage {
                line: "<list> [--json]",
                words: &[("list", "Lists current instances"), ("--json", "Print a JSON array")],
            },
            Usage {
                line: "<stop> <id> [--timeout <seconds>]",
                words: &[
                    ("stop", "End an instance: SIGTERM for its command, SIGKILL when the time is over"),
                    ("seconds", "Time to end in, 10 when not given"),
                ],
            },
            Usage {
                line: "<kill> <id> [signal]",
                words: &[
                    ("kill", "Send a signal to the command of an instance"),
                    ("signal", "Name, with or without SIG, or number; TERM when not given"),
                ],
            },
            Usage {
                line: "<wait> <id>",
                words: &[("wait", "Wait until an instance has ended; the exit code is that of its command")],
            },
            Usage {
                line: "<logs> <id> [--follow]",
                words: &[
                    ("logs", "Print what a detached instance has written: the last 512 KiB to 1 MiB of it"),
                    ("--follow", "Go on until the instance has ended"),
                ],
            },
            Usage {
                line: "<stats> [--json]",
                words: &[("stats", "Show what the instances use, every second on a terminal until q is pressed")],
            },
        ],
        notes: &[
            "IDs count from 0 in start order and are not reused while any instance of the session runs.",
            "The log and the exit code of a detached instance that has ended are kept until the last instance of the session has ended.",
        ],
        examples: &["fim-instance exec 0 echo hello"],
        frees_file: true,
    },
    Spec {
        name: "portal",
        summary: "Allow programs of the image to run commands on the host",
        usages: &[
            Usage {
                line: "<allow|del> <names...>",
                words: &[
                    ("allow", "Allow host commands"),
                    ("del", "Take host commands from the list"),
                    (
                        "names...",
                        "Names of programs, without a directory, separated by commas or blanks; '*' is every name",
                    ),
                ],
            },
            Usage {
                line: "<list> [--json]",
                words: &[("list", "List the allowed names"), ("--json", "Print a JSON array")],
            },
            Usage { line: "<clear>", words: &[("clear", "Allow nothing")] },
            settings::INHERIT,
        ],
        notes: &[
            "Inside, fim_portal NAME [args...] runs the host command NAME with the user's own environment, outside of every isolation; xdg-open, when allowed, works by its own name too.",
            "An allowed command that can run others (a shell, an editor, a browser) gives away the user's whole account.",
            "Instances that run keep the list they were started with.",
        ],
        examples: &["fim-portal allow xdg-open,notify-send", "fim-exec fim_portal notify-send hello"],
        frees_file: true,
    },
    Spec {
        name: "cache",
        summary: "Manage layers that were extracted because the host has no FUSE",
        usages: &[
            Usage {
                line: "<list> [--json]",
                words: &[
                    ("list", "Lists the layers: digest, bytes and state, separated by colons"),
                    ("--json", "Print a JSON array"),
                ],
            },
            Usage { line: "<clear>", words: &[("clear", "Removes the layers that nobody uses")] },
        ],
        notes: &[
            "They lie in $XDG_CACHE_HOME/fim, or ~/.cache/fim, for all images of the user. A layer is extracted again when it is needed.",
            "Layers that running instances use are kept; the exit code is 125 then.",
        ],
        examples: &["fim-cache list"],
        frees_file: false,
    },
    Spec {
        name: "doctor",
        summary: "Try on this host what a start needs",
        usages: &[
            Usage { line: "[--json]", words: &[("--json", "Print one JSON object")] },
            Usage {
                line: "<--apparmor>",
                words: &[("--apparmor", "Print an AppArmor profile that lets this file make user namespaces")],
            },
        ],
        notes: &[
            "Each line is the result of the real operation, done in a process of its own; nothing of it stays. What fails is followed by what helps.",
            "The exit code is 0 when the image can run here, and 125 when it cannot.",
        ],
        examples: &["fim-doctor", "fim-doctor --apparmor | sudo apparmor_parser -r"],
        frees_file: false,
    },
    Spec {
        name: "inspect",
        summary: "Print what the image holds without running it",
        usages: &[Usage { line: "[--json]", words: &[("--json", "Print one JSON object")] }],
        notes: &[],
        examples: &["fim-inspect --json"],
        frees_file: false,
    },
    Spec {
        name: "verify",
        summary: "Re-compute every digest of the image",
        usages: &[Usage { line: "[--json]", words: &[("--json", "Print one JSON object")] }],
        notes: &["A damaged image gives exit code 125 and a line for each damaged range."],
        examples: &["fim-verify"],
        frees_file: false,
    },
    Spec {
        name: "version",
        summary: "Displays version information of FlatImage",
        usages: &[Usage {
            line: "<short|full|deps>",
            words: &[
                ("short", "Displays the version as a string"),
                ("full", "Displays the version and build information in json"),
                ("deps", "Displays dependencies metadata in json"),
            ],
        }],
        notes: &["full and deps print JSON objects."],
        examples: &["fim-version full"],
        frees_file: false,
    },
    Spec {
        name: "complete",
        summary: "Prints the completions of a shell",
        usages: &[Usage {
            line: "<bash|zsh|fish>",
            words: &[
                ("bash", "Completions for bash"),
                ("zsh", "Completions for zsh"),
                ("fish", "Completions for fish"),
            ],
        }],
        notes: &["They are for an image of the name that this one has now."],
        examples: &["fim-complete bash > ~/.local/share/bash-completion/completions/app.flatimage"],
        frees_file: false,
    },
    Spec {
        name: "help",
        summary: "Displays the help of a command",
        usages: &[Usage {
            line: "[topic] [--man]",
            words: &[
                ("topic", "A command without its fim- prefix"),
                ("--man", "Print a page for man(1); without a topic, the page of all commands"),
            ],
        }],
        notes: &[],
        examples: &["fim-help exec", "fim-help perms --man | man -l -"],
        frees_file: false,
    },
];

/// The command of this name (with its `fim-`), names being case-sensitive.
#[must_use]
pub fn find(word: &OsStr) -> Option<&'static Spec> {
    let name = word.to_str()?.strip_prefix("fim-")?;
    COMMANDS.iter().find(|spec| spec.name == name)
}

/// Operations of the commands in `settings` that read only.
const READING: [&str; 5] = ["list", "show", "explain", "connections", "check"];

/// Whether a command with these words after it runs something or changes the image.
#[must_use]
pub fn frees_file(spec: &Spec, words: &[OsString]) -> bool {
    let reads = words.first().is_some_and(|word| READING.iter().any(|name| word.eq_ignore_ascii_case(name)));
    spec.frees_file && !(is_setting(spec) && reads)
}

/// Whether the command is about what is stored in the image.
fn is_setting(spec: &Spec) -> bool {
    !matches!(spec.name, "exec" | "root" | "instance")
}
