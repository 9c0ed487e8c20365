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

pub(super) const SERVICE: Spec = Spec {
    name: "service",
    summary: "Run commands of the image as services",
    usages: &[
        Usage {
            line: "<add> [--disabled] [--listens <port>] <name> <program> [args...]",
            words: &[
                ("add", "Declare a service"),
                ("--disabled", "Start it by its name only"),
                (
                    "--listens",
                    "A TCP port that it listens on; with the permission network, a start says who has that port",
                ),
                ("name", "1 to 40 letters and digits, with single hyphens between them"),
                ("program", "Name of the program to execute"),
                ("args...", "Arguments for the executed program"),
            ],
        },
        Usage {
            line: "<del|enable|disable> <name>",
            words: &[
                ("del", "Remove a service that does not run"),
                ("enable", "Start it with the others when none is named"),
                ("disable", "Start it by its name only"),
            ],
        },
        Usage {
            line: "<list|clear> [--json]",
            words: &[
                ("list", "Lists the services with their state; without a key, those of every key, too"),
                ("clear", "Remove all services"),
                JSON,
            ],
        },
        Usage {
            line: "<start|stop|restart> [names...]",
            words: &[
                ("start", "Start services in detached instances; those that are enabled when none is named"),
                ("stop", "End services; all when none is named"),
                ("restart", "End services and start them again; those that run when none is named"),
            ],
        },
        Usage {
            line: "<logs> [names...] [-n <lines>] [-f]",
            words: &[
                ("logs", "Print what services have written, the last 10 lines"),
                ("-n", "How many lines, or all"),
                ("-f", "Go on with what they write until it is interrupted"),
            ],
        },
        INHERIT,
    ],
    notes: &[
        "Each installation has services, logs and instances of its own; a key has those that the image declares until it declares others.",
        "A service runs as with fim-exec --detach, in the home directory. Starting one that runs changes nothing; one that has ended is inactive, and the JSON listing has its exit code.",
        "Its log is kept in the data directory, the last 512 KiB to 1 MiB of all runs. Each line has its time, the service and the process that supervises it.",
        "Ports of a service are published with fim-port publish HOST:GUEST --service NAME.",
    ],
    examples: &["fim-service add web httpd -f -p 80", "fim-service start", "fim-service logs web -f"],
    frees_file: true,
};
