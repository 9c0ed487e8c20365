//! The documents of a container image: OCI image specification 1.1 ("Image Index", "Image Manifest", "Image
//! Configuration"), and `manifest.json` of `docker save`.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A reference to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// Names that the index gives the image.
    pub fn names(&self) -> Vec<String> {
        let keys = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
        let annotations = self.annotations.iter().flatten();
        annotations.filter(|(key, _)| keys.contains(&key.as_str())).map(|(_, name)| name.clone()).collect()
    }
}

/// What a machine must be to run an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// As Go calls it: `amd64`, `arm64`.
    pub architecture: String,
    /// `v7`, say.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this program.
    pub fn own() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Parses `OS/ARCHITECTURE[/VARIANT]`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next());
        let whole = parts.next().is_none() && !os.is_empty() && !architecture.is_empty();
        whole.then_some(Self { os, architecture, variant })
    }

    /// Whether an image for `other` will do.
    pub fn accepts(&self, other: &Self) -> bool {
        let variant = self.variant.is_none() || self.variant == other.variant;
        self.os == other.os && self.architecture == other.architecture && variant
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().filter(|variant| !variant.is_empty()).try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// `index.json`, or an index that another one names.
#[derive(Debug, Deserialize)]
pub struct Index {
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// The manifest of one image.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// One image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Saved {
    pub config: String,
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

/// The configuration of an image.
#[derive(Debug, Deserialize)]
pub struct ImageConfig {
    #[serde(flatten)]
    pub platform: Option<Platform>,
    pub config: Option<Execution>,
    pub rootfs: RootFs,
}

/// How an image is run. Docker writes null for what is not given.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    pub user: Option<String>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<serde::de::IgnoredAny>,
}

/// The layers of an image, bottom first, by the digests of their uncompressed tars.
#[derive(Debug, Deserialize)]
pub struct RootFs {
    pub diff_ids: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_compared_by_what_is_asked_for() {
        let parse = |text| Platform::parse(text).unwrap();
        assert!(parse("linux/arm").accepts(&parse("linux/arm/v7")));
        assert!(!parse("linux/arm/v6").accepts(&parse("linux/arm/v7")));
        assert!(!parse("linux/amd64").accepts(&parse("linux/arm64")));
        assert!(!parse("linux/amd64").accepts(&parse("windows/amd64")));
        assert_eq!(parse("linux/arm/v7").to_string(), "linux/arm/v7");
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x"] {
            assert_eq!(Platform::parse(text), None, "{text}");
        }
    }

    #[test]
    fn documents_may_lack_and_null_what_is_optional() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Env":["A=b"],"New":1},"rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        let run = config.config.unwrap();
        assert_eq!((run.cmd, run.env), (None, Some(vec!["A=b".to_owned()])));
        assert_eq!(config.platform.unwrap().to_string(), "linux/amd64");
        assert!(serde_json::from_str::<Manifest>(r#"{"config":{}}"#).is_err());
    }
}
