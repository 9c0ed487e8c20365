//! The command about content that images share.

use super::{Spec, Usage};

const JSON: (&str, &str) = ("--json", "Print JSON");

pub(super) const CONTENT: Spec = Spec {
    name: "content",
    summary: "Share files and sockets between images",
    usages: &[
        Usage {
            line: "<slot> <name> [--content <id>] [--read <path>]... [--write <path>]... [--source]",
            words: &[
                ("slot", "Let other images use files of this one"),
                ("name", "A name for it"),
                ("--content", "What kind of content it is, the name when not given; a plug must say the same"),
                ("--read", "A file or directory that others may read"),
                (
                    "--write",
                    "A file, socket or directory that others may also write, below $FIM_DATA or $FIM_COMMON; with a / at its end, a directory that is made when it is missing",
                ),
                ("--source", "Have each path appear by its own name, instead of merging directories"),
            ],
        },
        Usage {
            line: "<plug> <name> [--content <id>] --target <path> [--default-provider <file>] [--least <version>] [--digest <digits>] [--optional]",
            words: &[
                ("plug", "Use files of other images"),
                ("name", "A name for it"),
                ("--target", "Where they appear"),
                (
                    "--default-provider",
                    "Image to use when nothing else is connected: a file, relative to this image, or a path below the remote URL",
                ),
                ("--least", "Least version of the producer, compared number by number"),
                ("--digest", "BLAKE3 digest that a default provider must have when it is fetched"),
                ("--optional", "Start without it when there is none"),
            ],
        },
        Usage {
            line: "<unslot|unplug> <name>",
            words: &[("unslot", "Remove a slot"), ("unplug", "Remove a plug, with its connections in the image")],
        },
        Usage {
            line: "<connect> <plug> <file[:slot]> [--embed]",
            words: &[
                (
                    "connect",
                    "Have an image serve a plug, as it is now; several may serve one. Once more after it has changed",
                ),
                ("file", "The image, or a link to it that stands for an instance key"),
                ("slot", "Its slot, where it has several of the content"),
                ("--embed", "Store it in the image instead of the data of this installation"),
            ],
        },
        Usage {
            line: "<disconnect> <plug> [file[:slot]] [--embed]",
            words: &[("disconnect", "End all connections of a plug, or the one with this producer")],
        },
        Usage {
            line: "<connections|list> [--json]",
            words: &[
                (
                    "connections",
                    "Lists which producers a start would use now: plug, content, file and slot, separated by colons, or what is missing",
                ),
                ("list", "Lists the slots and plugs of the image"),
                JSON,
            ],
        },
        Usage { line: "<inherit>", words: &[("inherit", "Has the connections follow the image again")] },
    ],
    notes: &[
        "Paths begin with $FIM_ROOT_DIR (files of the application), $FIM_DATA or $FIM_COMMON, or as in snap with $SNAP, $SNAP_DATA or $SNAP_COMMON. Put them in single quotes.",
        "The producer need not run. Its layers are mounted read-only for the instances of this image; what it shares for writing lies in its data directory, where both see the same files and sockets.",
        "One file or directory appears as the target itself. Of several, directories for reading are merged in the order in which they were connected; everything else appears by its own name, and by name-2, name-3 where that is taken. Names stay.",
        "A plug gets what was connected; else what the one image beside this one shares that has the same publisher (fim sign); else its default provider, for which the user is asked unless it has the same publisher.",
        "A producer that is replaced or changed has to be connected again: a start asks on a terminal, and is refused otherwise.",
        "Instances that run keep what they were started with. Plugs of a producer are not followed, so that two images may use each other.",
    ],
    examples: &[
        "fim-content slot libs --content libs-0 --read '$FIM_ROOT_DIR/lib'",
        "fim-content plug libs --content libs-0 --target '$FIM_ROOT_DIR/extra-libs'",
        "fim-content connect libs ./libs.flatimage",
    ],
    frees_file: true,
};
