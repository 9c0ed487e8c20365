//! The commands about servers: published ports and services.

use super::settings::INHERIT;
use super::{Spec, Usage};

const JSON: (&str, &str) = ("--json", "Print JSON");

pub(super) const PORT: Spec = Spec {
    name: "port",
    summary: "Publish ports of the guest on the loopback of the host",
    usages: &[
        Usage {
            line: "<publish> <host:guest[/udp]> [--service <name>]",
            words: &[
                ("publish", "Have instances that start from now on be reached by a port of the host"),
                ("host:guest", "Port of the host, on 127.0.0.1 and ::1, and port of the guest, 1 to 65535 each"),
                ("/udp", "Pass on datagrams instead of connections"),
                ("--service", "For the instance of one service only (see fim-service)"),
                ("name", "That service"),
            ],
        },
        Usage { line: "<unpublish> <host[:guest][/udp]>", words: &[("unpublish", "Do not publish a port any more")] },
        Usage {
            line: "<list|clear> [--json]",
            words: &[
                ("list", "Lists the published ports: host, guest and service"),
                ("clear", "Publishes none any more"),
                JSON,
            ],
        },
        INHERIT,
    ],
    notes: &[
        "Each instance has a network of its own, in which its servers have any port. A published port without a service reaches the instance that was first; instances of the same installation that start while it runs say so.",
        "A start is refused when another installation or program has the port of the host, and the message says who.",
        "Every user of the host can connect to the port, as to any on its loopback. The guest sees connections from its own loopback.",
        "With the permission network, the guest has the host's network and nothing can be published.",
        "A port ends with its instance. Instances that run keep what they were started with.",
    ],
    examples: &["fim-port publish 8080:80", "fim-port publish 5353:53/udp", "fim-port publish 8080:80 --service web"],
    frees_file: true,
};
