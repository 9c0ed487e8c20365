//! The commands about layers and writable data. The first lines of `fim-layer` are FlatImage's.

use super::{Spec, Usage};

const LEVEL: (&str, &str) =
    ("--level", "Compression, 0 (fast) to 9 (small); FIM_COMPRESSION_LEVEL where it is not given, and 7 without both");
const JSON: (&str, &str) = ("--json", "Print JSON");

pub(super) const LAYER: Spec = Spec {
    name: "layer",
    summary: "Manage the layers of the current FlatImage",
    usages: &[
        Usage {
            line: "<create> <in-dir> <out-file> [--level <n>]",
            words: &[
                ("create", "Creates a novel layer from <in-dir> and save in <out-file>"),
                ("in-dir", "Input directory to create a novel layer"),
                ("out-file", "Output file name of the layer file; it must not exist"),
                LEVEL,
            ],
        },
        Usage {
            line: "<add> <in-file>",
            words: &[
                ("add", "Includes the novel layer <in-file> in the image, on top of those that it has"),
                ("in-file", "Path to the layer file to include: any squashfs 4.0"),
            ],
        },
        Usage {
            line: "<commit> <binary|layer|file> [path] [--level <n>]",
            words: &[
                ("commit", "Compresses the changes of the writable layer into a read-only one"),
                ("binary", "Appends it to the image"),
                ("layer", "Saves it in the layers directory of the image's data"),
                ("file", "Saves it to [path]"),
                LEVEL,
            ],
        },
        Usage {
            line: "<list> [--json]",
            words: &[("list", "Lists the layers, bottom first, in the format index:offset:size:path"), JSON],
        },
        Usage {
            line: "<remove> <index>",
            words: &[("remove", "Removes the last layer of the image, which has the index <index>")],
        },
        Usage {
            line: "<extract> <index> <out-dir>",
            words: &[
                ("extract", "Unpacks the layer with the index <index>"),
                ("out-dir", "Directory to make; it must not exist, or be empty"),
            ],
        },
        Usage {
            line: "<diff> [--json]",
            words: &[
                ("diff", "Lists what the writable layer adds (A), modifies (M) and deletes (D), with sizes"),
                JSON,
            ],
        },
        Usage {
            line: "<squash> [binary|layer] [--level <n>]",
            words: &[
                ("squash", "Makes one layer of several"),
                ("binary", "All layers in the image; also when nothing is given"),
                ("layer", "All layers in the layers directory of the image's data"),
                LEVEL,
            ],
        },
        Usage {
            line: "<reset> [--yes]",
            words: &[("reset", "Drops the changes of the writable layer"), ("--yes", "Do not ask")],
        },
        Usage {
            line: "<rebase> <keep|commit|reset>",
            words: &[
                (
                    "rebase",
                    "Says what becomes of a writable layer that was made on other layers than the image has now",
                ),
                ("keep", "It stays, on top of the new layers"),
                ("commit", "It becomes a layer in the layers directory of the image's data"),
                ("reset", "It is dropped"),
            ],
        },
    ],
    notes: &[
        "The stack, bottom to top: layers of the image, FIM_LAYERS (files and directories, separated by colons) from left to right, the layers directory of the image's data by number, the writable layer.",
        "Instances that run keep the layers they were started with.",
    ],
    examples: &["fim-layer create ./usr-tree extra.layer", "fim-layer add extra.layer", "fim-layer commit binary"],
    frees_file: true,
};

pub(super) const OCI: Spec = Spec {
    name: "oci",
    summary: "Export the image for engines of containers",
    usages: &[Usage {
        line: "<export> <file> [--name <name:tag>]",
        words: &[
            ("export", "Writes all layers as an OCI image archive, which podman load and skopeo take as it is"),
            ("file", "The archive to make; it must not exist"),
            ("--name", "What an engine lists it under; the image's own name where it is not given"),
        ],
    }],
    notes: &[
        "The archive has one layer: what a start sees, without the changes that are not committed.",
        "The boot command becomes the entrypoint, stored variables the environment, and a stored UID and GID the user. Permissions and binds have no counterpart.",
    ],
    examples: &["fim-oci export app.tar", "fim-oci export app.tar --name team/app:1.0"],
    frees_file: true,
};

pub(super) const DATA: Spec = Spec {
    name: "data",
    summary: "Show or remove what the image has written",
    usages: &[
        Usage { line: "<path>", words: &[("path", "Prints the directory that it is kept in, or would be kept in")] },
        Usage { line: "<size> [--json]", words: &[("size", "Prints how many bytes it takes"), JSON] },
        Usage {
            line: "<clear> [--yes]",
            words: &[("clear", "Removes the writable layer and the layers directory"), ("--yes", "Do not ask")],
        },
    ],
    notes: &[
        "FIM_DIR_DATA names another directory, and with it a separate set of data.",
        "Data that instances use is not removed; the exit code is 125 then.",
    ],
    examples: &["fim-data size", "fim-data clear --yes"],
    frees_file: false,
};
