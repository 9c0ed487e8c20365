//! What stacks the layers of a start: the stored choice, the variables before it, and casefold, which only our own
//! overlay can do.

use std::ffi::OsStr;

use runtime::image::{Config, OverlayKind};
use runtime::mount_server::Stack;

/// Every kind there is.
pub(crate) const KINDS: [OverlayKind; 3] = [OverlayKind::Bwrap, OverlayKind::Overlayfs, OverlayKind::Unionfs];

/// What FlatImage says when casefold meets the kernel's overlay; scripts know it.
pub(crate) const REPLACED: &str = "casefold cannot be used with bwrap overlayfs, falling back to unionfs";

/// The overlay of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stacking {
    /// As chosen, after casefold has had its say.
    pub kind: OverlayKind,
    /// Whether names are found without regard to case.
    pub casefold: bool,
    /// Whether casefold has replaced the kernel's overlay.
    pub replaced: bool,
}

impl Stacking {
    /// `FIM_OVERLAY`, in lower case, goes before what is stored; other values of it count for nothing. `FIM_CASEFOLD`
    /// can turn casefold on, not off.
    #[must_use]
    pub fn of<'a>(config: &Config, variable: impl Fn(&str) -> Option<&'a OsStr>) -> Self {
        let named = variable("FIM_OVERLAY");
        let named = KINDS.into_iter().find(|kind| named.is_some_and(|value| *value == *kind.name().to_lowercase()));
        let kind = named.unwrap_or(config.overlay);
        let casefold = config.casefold || variable("FIM_CASEFOLD").is_some_and(|value| value == "1");
        let replaced = casefold && kind == OverlayKind::Bwrap;
        Self { kind: if replaced { OverlayKind::Unionfs } else { kind }, casefold, replaced }
    }

    /// What the mount server is asked for.
    #[must_use]
    pub fn stack(self) -> Stack {
        match self.kind {
            OverlayKind::Bwrap => Stack::Kernel,
            OverlayKind::Overlayfs | OverlayKind::Unionfs => Stack::Userspace { casefold: self.casefold },
        }
    }

    /// What this is called in debug output.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self.kind {
            OverlayKind::Bwrap => "BWRAP",
            OverlayKind::Overlayfs => "FUSE_OVERLAYFS",
            OverlayKind::Unionfs => "UNIONFS_FUSE",
        }
    }

    /// What it adds to the shape of a session.
    #[must_use]
    pub fn shape(self) -> Vec<String> {
        let overlay = if self.stack() == Stack::Kernel { "kernel" } else { "userspace" };
        let casefold = self.casefold.then(|| "casefold on".to_owned());
        [format!("overlay {overlay}")].into_iter().chain(casefold).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(stored: OverlayKind, casefold: bool, variables: &[(&str, &str)]) -> Stacking {
        let config = Config { overlay: stored, casefold, ..Config::default() };
        Stacking::of(&config, |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsStr::new(*value))
        })
    }

    #[test]
    fn the_variable_goes_first_when_it_is_exact() {
        let kind = |value| of(OverlayKind::Overlayfs, false, &[("FIM_OVERLAY", value)]).kind;
        assert_eq!(kind("unionfs"), OverlayKind::Unionfs);
        assert_eq!(kind("UNIONFS"), OverlayKind::Overlayfs);
        assert_eq!(kind(""), OverlayKind::Overlayfs);
        assert_eq!(of(OverlayKind::Bwrap, false, &[]).kind, OverlayKind::Bwrap);
    }

    #[test]
    fn casefold_takes_our_own_overlay() {
        let on = of(OverlayKind::Bwrap, true, &[]);
        assert_eq!(
            (on.kind, on.replaced, on.stack()),
            (OverlayKind::Unionfs, true, Stack::Userspace { casefold: true })
        );
        assert_eq!(on.shape(), ["overlay userspace", "casefold on"]);
        assert!(!of(OverlayKind::Overlayfs, true, &[]).replaced);
        assert!(of(OverlayKind::Bwrap, false, &[("FIM_CASEFOLD", "1")]).casefold);
        assert!(!of(OverlayKind::Bwrap, false, &[("FIM_CASEFOLD", "yes")]).casefold);
        assert!(of(OverlayKind::Bwrap, true, &[("FIM_CASEFOLD", "0")]).casefold);
        assert_eq!(of(OverlayKind::Bwrap, false, &[]).shape(), ["overlay kernel"]);
    }
}
