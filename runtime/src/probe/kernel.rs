//! The version of the kernel, and what an older one lacks.

use super::{Refusal, Verdict};

/// What a start needs, and the first kernel that has it.
const NEEDED: [(u32, u32, &str); 8] = [
    (4, 18, "FUSE in user namespaces"),
    (5, 2, "mounts as descriptors (open_tree, move_mount, fsopen)"),
    (5, 3, "processes as descriptors (pidfd_open), clone3"),
    (5, 6, "openat2"),
    (5, 9, "close_range, answers of a system call filter that carry a descriptor"),
    (5, 10, "FUSE attributes of submounts (7.31)"),
    (5, 11, "overlayfs in user namespaces"),
    (5, 12, "attributes of mounts (mount_setattr)"),
];

/// The first two numbers of a release such as `6.1.0-50-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What a kernel of this version lacks.
fn lacking((major, minor): (u32, u32)) -> Vec<String> {
    let newer = NEEDED.iter().filter(|(since, point, _)| (*since, *point) > (major, minor));
    newer.map(|(since, point, what)| format!("{what}: {since}.{point}")).collect()
}

/// Judges a release by its numbers. Distributions bring newer parts to older kernels, so this is a hint; the other
/// probes decide.
pub fn judge(release: &str) -> Verdict {
    let Some(found) = version(release) else { return Ok(format!("Linux {release}")) };
    let lacking = lacking(found);
    if lacking.is_empty() {
        return Ok(format!("Linux {release}"));
    }
    let why = format!("Linux {release} may lack {}", lacking.join("; "));
    Err(Refusal::new(why, "install a kernel of 5.12 or newer"))
}

/// Judges the kernel that runs.
pub fn running() -> Verdict {
    let name =
        nix::sys::utsname::uname().map_err(|errno| Refusal::io("ask for the kernel's release", errno, super::CHECK))?;
    judge(&name.release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_is_told_what_it_lacks() {
        assert_eq!(judge("6.1.0-50-amd64"), Ok("Linux 6.1.0-50-amd64".to_owned()));
        assert_eq!(judge("5.12.0"), Ok("Linux 5.12.0".to_owned()));
        let refusal = judge("5.10.0-30-amd64").unwrap_err();
        assert!(
            refusal.why.contains("overlayfs in user namespaces: 5.11; ")
                && refusal.why.ends_with("(mount_setattr): 5.12"),
            "{refusal:?}"
        );
        assert!(!refusal.why.contains("5.10;"), "{refusal:?}");
        assert!(judge("4.4.0").unwrap_err().why.contains("FUSE in user namespaces: 4.18"));
        for strange in ["", "x", "5"] {
            assert!(judge(strange).is_ok());
        }
    }
}
