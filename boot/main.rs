//! `fim`: role dispatch.

#![forbid(unsafe_code)]

fn main() {
    let roles = boot::Roles { guest: guest_daemon::run, host: host_daemon::run };
    let build = boot::version::Build {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("FIM_BUILD_COMMIT"),
        timestamp: env!("FIM_BUILD_TIMESTAMP"),
    };
    std::process::exit(boot::run(roles, build));
}
