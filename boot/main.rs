//! `fim`: role dispatch.

#![forbid(unsafe_code)]

// Linked for its symbol only: the program's entry point.
extern crate entry as _;

fn main() {
    let roles = boot::Roles { guest: guest_daemon::run, host: host_daemon::run, ports: host_daemon::ports::run };
    let build = boot::version::Build {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("FIM_BUILD_COMMIT"),
        timestamp: env!("FIM_BUILD_TIMESTAMP"),
    };
    std::process::exit(boot::run(roles, build));
}
