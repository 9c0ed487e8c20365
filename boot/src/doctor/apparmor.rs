//! An AppArmor profile for an image. Ubuntu 23.10 and newer let programs without one make user namespaces that cannot
//! mount anything.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use runtime::image::Uuid;

/// Where AppArmor 4 keeps the description of what it mediates (`abi` in apparmor.d(5)).
const ABI: &str = "/etc/apparmor.d/abi/4.0";

/// Whether the AppArmor of this host mediates user namespaces, and its parser therefore knows the rule.
pub(super) fn mediates() -> bool {
    Path::new(ABI).exists()
}

/// The profile, for apparmor_parser(8). The program behind it is not confined: its own sandbox does that.
pub(super) fn profile(image: &Path, uuid: Uuid, mediates: bool) -> Vec<u8> {
    let (abi, rule) = if mediates { ("abi <abi/4.0>,\n", "  userns,\n") } else { ("", "") };
    let head = "# Lets one image make user namespaces; its own sandbox confines what runs in it.\n\
                # Load it: sudo apparmor_parser -r FILE; keep FILE in /etc/apparmor.d for later boots.\n";
    let name = format!("{head}{abi}profile \"fim-{uuid}\" \"");
    let body = format!("\" flags=(unconfined) {{\n{rule}}}\n");
    [name.as_bytes(), &quoted(image.as_os_str().as_bytes()), body.as_bytes()].concat()
}

/// A path between double quotes, in which no byte has a meaning of its own (apparmor.d(5), "Globbing").
fn quoted(path: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'"' | b'\\' | b'*' | b'?' | b'[' | b']' | b'{' | b'}' | b'^' | b'@' | b',' => text.extend([b'\\', byte]),
            0..=31 | 127 => text.extend(format!("\\{byte:03o}").bytes()),
            _ => text.push(byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_nothing_but_itself() {
        assert_eq!(quoted(b"/a b/app.com"), b"/a b/app.com");
        assert_eq!(quoted(b"/\"{a,b}*@{HOME}\\"), b"/\\\"\\{a\\,b\\}\\*\\@\\{HOME\\}\\\\");
        assert_eq!(quoted(b"/new\nline\xff"), b"/new\\012line\xff");
    }

    #[test]
    fn the_rule_stands_where_the_parser_knows_it() {
        let text = |mediates| String::from_utf8(profile(Path::new("/x"), Uuid([0; 16]), mediates)).unwrap();
        assert!(
            text(true).contains("abi <abi/4.0>,\nprofile \"fim-00000000-")
                && text(true).ends_with("\" \"/x\" flags=(unconfined) {\n  userns,\n}\n")
        );
        assert!(!text(false).contains("userns,") && !text(false).contains("abi <"));
    }
}
