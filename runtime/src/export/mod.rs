//! An image becomes an OCI image archive: an image layout (OCI image specification 1.1, "Image Layout") in one tar, whose
//! only layer has what the merged layers show. Engines of containers load it as it is.

mod archive;
mod layer;
mod names;

use std::fs::File;
use std::io;

use serde_json::{Value, json};

use crate::extract;
use crate::pack::Platform;
use crate::progress::Progress;
use crate::squashfs::Archive;
use archive::{Blob, Output};
pub use names::find_shell;

/// What an engine starts, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Name and tag that an engine lists the image under: `name:tag`.
    pub reference: String,
    /// Program and arguments that arguments of the user are appended to; empty for none.
    pub entrypoint: Vec<String>,
    /// Program and arguments that the user's own replace; empty for none.
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// `UID` or `UID:GID`; empty for the engine's choice.
    pub user: String,
    /// Seconds since the epoch; 0 for unknown.
    pub created: u64,
    /// What the archive says it was made by.
    pub made_by: String,
}

/// What was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Sockets, which a tar cannot hold.
    pub sockets: u64,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer cannot be read, or the listener wanted no more.
    #[error(transparent)]
    Layer(#[from] extract::Error),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[from] io::Error),
}

/// Writes the merged `layers`, bottom first, as an OCI image archive to the empty file `out`. `scratch` is an empty file
/// that the compressed layer is put into on its way.
///
/// # Errors
/// When a layer is damaged, the file system refuses, or `progress` wants no more.
pub fn oci(
    layers: &[Archive],
    settings: &Settings,
    scratch: &File,
    out: &File,
    progress: &mut dyn Progress,
) -> Result<Omitted, Error> {
    let (layer, diff, omitted) = layer::write(layers, scratch, progress)?;
    let platform = Platform::own();
    let mut output = Output::new(out, settings.created);
    output.file("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes())?;
    output.blob(&layer, scratch)?;
    let config = output.document(&config(settings, &platform, &diff))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    });
    let mut manifest = descriptor("application/vnd.oci.image.manifest.v1+json", &output.document(&manifest)?);
    manifest["platform"] = json!({ "os": platform.os, "architecture": platform.architecture });
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": settings.reference });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    output.file("index.json", index.to_string().as_bytes())?;
    output.end()?;
    Ok(omitted)
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest(), "size": blob.size })
}

/// The image configuration; `diff` is the digest of the layer before compression.
fn config(settings: &Settings, platform: &Platform, diff: &str) -> Value {
    let mut run = serde_json::Map::new();
    for (name, words) in
        [("Entrypoint", &settings.entrypoint), ("Cmd", &settings.command), ("Env", &settings.environment)]
    {
        if !words.is_empty() {
            run.insert(name.to_owned(), json!(words));
        }
    }
    if !settings.user.is_empty() {
        run.insert("User".to_owned(), json!(settings.user));
    }
    let mut history = json!({ "created_by": settings.made_by });
    let mut config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [diff] },
    });
    if settings.created > 0 {
        let created = crate::time::rfc3339(settings.created);
        history["created"] = json!(created);
        config["created"] = json!(created);
    }
    config["history"] = json!([history]);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_not_written() {
        let written = config(&Settings::default(), &Platform::own(), "sha256:0");
        assert_eq!(written["config"], json!({}));
        assert!(written.get("created").is_none());
        let settings = Settings {
            command: vec!["/bin/sh".to_owned()],
            user: "1000".to_owned(),
            created: 1,
            ..Settings::default()
        };
        let written = config(&settings, &Platform::own(), "sha256:0");
        assert_eq!(written["config"], json!({ "Cmd": ["/bin/sh"], "User": "1000" }));
        assert_eq!(written["created"], "1970-01-01T00:00:01Z");
    }
}
