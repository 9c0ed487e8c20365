//! The commands about who vouches for an image.

use super::{Spec, Usage};

pub(super) const KEY_PAIR: Spec = Spec {
    name: "key-pair",
    summary: "Make the keys of a publisher",
    usages: &[Usage {
        line: "<file>",
        words: &[("file", "Where the secret key goes; the public one goes to FILE.pub and is printed")],
    }],
    notes: &[
        "The secret key signs images (fim-sign); whoever has it is the publisher. The file is for its owner only, and no file is ever overwritten.",
    ],
    examples: &["fim-key-pair ~/.config/fim/publisher"],
    frees_file: false,
};

pub(super) const SIGN: Spec = Spec {
    name: "sign",
    summary: "Vouch for the image as its publisher",
    usages: &[Usage {
        line: "--key <file> [--version <version>]",
        words: &[
            ("--key", "Sign with this secret key; a signature that is there is replaced"),
            ("file", "The secret key, as fim-key-pair makes it"),
            ("--version", "Give the application this version"),
            ("version", "Letters, digits and the signs + - _ ~, in parts joined by points"),
        ],
    }],
    notes: &[
        "The signature covers the program, the layers and what the image declares: name, version, aliases, hooks, slots and plugs. What users set (permissions, variables, binds, boot command, layouts, services, ports, connections) may change.",
        "After a change of what it covers the image counts as unsigned until it is signed anew.",
        "fim-inspect and fim-verify tell whose signature it is; fim verify IMAGE --key FILE.pub fails unless it is by that key.",
    ],
    examples: &["fim-sign --key ~/.config/fim/publisher --version 2.1"],
    frees_file: true,
};
