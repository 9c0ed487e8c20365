//! The command about layouts.

use super::{Spec, Usage, settings};

pub(super) const LAYOUT: Spec = Spec {
    name: "layout",
    summary: "Make files of the application appear where its programs expect them",
    usages: &[
        Usage {
            line: "<add> <target> <symlink|bind|bind-file> <source> [--replace]",
            words: &[
                ("add", "Have <source> appear at <target>"),
                ("target", "A path of the guest, or one that begins with $FIM_ROOT_DIR, $FIM_DATA or $FIM_COMMON"),
                ("symlink", "As a symbolic link"),
                ("bind", "As a directory"),
                ("bind-file", "As a file"),
                ("source", "A path that begins with $FIM_ROOT_DIR, $FIM_DATA or $FIM_COMMON"),
                ("--replace", "Put it in the place of an object of another type"),
            ],
        },
        Usage {
            line: "<add> <target> <tmpfs> [--replace]",
            words: &[("tmpfs", "Have an empty directory in memory appear, which ends with the instance")],
        },
        Usage { line: "<del> <target>", words: &[("del", "Deletes the layout of this target")] },
        Usage {
            line: "<list> [--json]",
            words: &[("list", "Lists the layouts as the words of 'add'"), ("--json", "Print a JSON array")],
        },
        Usage { line: "<clear>", words: &[("clear", "Deletes all layouts")] },
        Usage {
            line: "<check>",
            words: &[("check", "Plans the layouts for the files of the image, and tells every problem")],
        },
        Usage {
            line: "<explain>",
            words: &[(
                "explain",
                "Tells what each layout does, in the order in which they are made, and what it costs",
            )],
        },
        Usage {
            line: "<import> <file>",
            words: &[
                ("import", "Adds the layouts of a layout: block, or none of them"),
                ("file", "A YAML file; a snapcraft.yaml will do, of which nothing else is read"),
            ],
        },
        settings::INHERIT,
    ],
    notes: &[
        "$SNAP, $SNAP_DATA and $SNAP_COMMON mean $FIM_ROOT_DIR, $FIM_DATA and $FIM_COMMON. Put words with a variable into single quotes.",
        "What is missing of <target>, and of <source> of bind and bind-file, is made: directories, and an empty file for bind-file. What a symbolic link leads to is not.",
        "No <target> may be at or below /boot, /dev, /home, /lib/firmware, /lib/modules, /usr/lib/firmware, /usr/lib/modules, /lost+found, /media, /proc, /run, /sys, /tmp, /var/lib/snapd, /var/run, /var/snap.",
        "Layouts show in the instance only. Instances that run keep what they were started with.",
    ],
    examples: &[
        "fim-layout add /var/lib/foo bind '$FIM_DATA/var/lib/foo'",
        "fim-layout add /etc/foo.conf bind-file '$FIM_DATA/etc/foo.conf'",
        "fim-layout import snapcraft.yaml",
    ],
    frees_file: true,
};
