//! Version, commit and build time.

use serde_json::json;

/// Stamped into the program by its build script.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// `MAJOR.MINOR.PATCH`.
    pub version: &'static str,
    /// Commit, 40 hexadecimal digits, or `unknown`.
    pub commit: &'static str,
    /// `YYYYMMDDHHMMSS` in UTC.
    pub timestamp: &'static str,
}

impl Build {
    /// `vX.Y.Z`.
    #[must_use]
    pub fn short(&self) -> String {
        format!("v{}", self.version)
    }

    /// JSON object with all of it; `distribution` is the image's name.
    #[must_use]
    pub fn full(&self, distribution: &str) -> String {
        let value = json!({
            "COMMIT": self.commit,
            "DISTRIBUTION": distribution,
            "TIMESTAMP": self.timestamp,
            "VERSION": self.short(),
        });
        format!("{value:#}")
    }
}
