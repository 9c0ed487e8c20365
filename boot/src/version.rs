//! Version, commit and build time.

use serde_json::json;

/// Every crate and library that is linked into the program, as a JSON object; scripts/dependencies.py writes it.
pub const DEPENDENCIES: &str = include_str!("dependencies.json");

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_those_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        let linked: serde_json::Map<String, serde_json::Value> = serde_json::from_str(DEPENDENCIES).unwrap();
        for (name, entry) in &linked {
            let text = |key: &str| entry[key].as_str().unwrap();
            assert!(!text("version").is_empty() && !text("source").is_empty(), "{name}");
            assert!(!entry["licenses"].as_array().unwrap().is_empty(), "{name} has no licence");
            if text("sha").is_empty() {
                continue;
            }
            let name = name.split('@').next().unwrap();
            let package = format!("name = \"{name}\"\nversion = \"{}\"\n", text("version"));
            let found = lock.split("[[package]]\n").find(|entry| entry.starts_with(&package));
            assert!(
                found.is_some_and(|entry| entry.contains(text("sha"))),
                "{name} is not what Cargo.lock says; run scripts/dependencies.py"
            );
        }
        for name in ["nix", "clap", "fuser", "libsquashfs", "zstd-sys"] {
            assert!(linked.contains_key(name), "{name} is missing; run scripts/dependencies.py");
        }
    }
}
