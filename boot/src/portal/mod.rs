//! The portal: how programs of the image run commands of the host.

pub mod client;
pub mod configure;

use std::path::{Path, PathBuf};

use runtime::portal::{ANY, IN_GUEST, PROGRAM, PROGRAMS, XDG_OPEN, directory};
use runtime::sandbox::plan::{Access, Step};

/// What `fim_portal` is where nothing is allowed: a few bytes instead of a program, and no pipe to the host at all.
const DENIED: &str = "#!/bin/sh
[ $# -gt 0 ] || { echo 'fim: name a command: fim_portal COMMAND [ARGUMENT...]' >&2; exit 1; }
printf 'fim: %s may not run on the host; to allow it, run this outside and start the image again: IMAGE fim-portal allow %s\\n' \"$1\" \"$1\" >&2
exit 125
";

/// What a guest sees of the portal but the pipes; see [`bind`].
pub(crate) fn steps(allowed: &[String]) -> Vec<Step> {
    let directory = |path: &str| Step::Directory { target: path.into(), mode: 0o755 };
    let program = Path::new(PROGRAMS).join(PROGRAM);
    let mut steps = vec![directory(PROGRAMS)];
    if allowed.is_empty() {
        steps.push(Step::File { target: program, content: DENIED.into(), mode: 0o755 });
        return steps;
    }
    steps.push(Step::PortalClient { target: program });
    if allowed.iter().any(|name| name == XDG_OPEN || name == ANY) {
        steps.push(Step::Symlink { target: Path::new(PROGRAMS).join(XDG_OPEN), to: PROGRAM.into() });
    }
    steps
}

/// The pipes of an instance's portal, read-only: they can be written to, and nothing can be made or moved there.
pub(crate) fn bind(instance: &Path) -> Step {
    let (source, target) = (directory(instance), PathBuf::from(IN_GUEST));
    Step::Bind { source, target, access: Access::ReadOnly, optional: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_grant_there_is_no_program_and_with_one_no_script() {
        let denied = steps(&[]);
        assert!(denied.iter().any(|step| matches!(step, Step::File { .. })));
        assert!(!denied.iter().any(|step| matches!(step, Step::PortalClient { .. } | Step::Symlink { .. })));
        let granted = steps(&["ls".to_owned()]);
        assert!(granted.iter().any(|step| matches!(step, Step::PortalClient { .. })));
        assert!(!granted.iter().any(|step| matches!(step, Step::File { .. } | Step::Symlink { .. })));
        for name in [XDG_OPEN, ANY] {
            assert!(steps(&[name.to_owned()]).iter().any(|step| matches!(step, Step::Symlink { .. })), "{name}");
        }
    }
}
