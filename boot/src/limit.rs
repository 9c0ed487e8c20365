//! The limit of open files (`RLIMIT_NOFILE`, getrlimit(2)), when it is what an error is about.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

/// What strerror(3) says when the limit of the whole system is reached (`ENFILE`), which begins like the other.
const WHOLE_SYSTEM: &str = "Too many open files in system";

/// Whether an error says that this process has as many files open as it may (`EMFILE`): in its text, for errors of many
/// kinds end in that one.
pub(crate) fn is_reached(error: &str) -> bool {
    error.contains(Errno::EMFILE.desc()) && !error.contains(WHOLE_SYSTEM)
}

/// The line of an error, with what to do where it is about this limit.
pub(crate) fn with_remedy(error: String) -> String {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if is_reached(&error) => format!(
            "{error}; at most {limit} files may be open here (RLIMIT_NOFILE): raise that limit, as by ulimit -n {}, or \
             have root do it",
            limit.max(512).saturating_mul(2)
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_limit_of_a_process_has_the_remedy() {
        let error = |errno: Errno| format!("cannot open x: {}", std::io::Error::from(errno));
        let told = with_remedy(error(Errno::EMFILE));
        assert!(told.contains("Too many open files") && told.contains("ulimit -n"), "{told}");
        for errno in [Errno::ENFILE, Errno::ENOENT] {
            assert_eq!(with_remedy(error(errno)), error(errno));
        }
    }
}
