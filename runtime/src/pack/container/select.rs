//! Which image of an index or an archive is meant, and its documents.

use super::digest::Digest;
use super::manifest::{Descriptor, ImageConfig, Index, Manifest, Platform, Saved};
use super::store::Store;
use super::{Choice, Problem};
use crate::source::FileRange;

/// Most descriptors of indices and manifests that are looked at, so that indices of indices come to an end.
const DESCRIPTORS_MAX: usize = 512;

/// A layer that is to be read.
pub struct Blob {
    /// Its name in the store.
    pub name: String,
    pub range: FileRange,
    /// Of the bytes as they are in the store.
    pub digest: Option<Digest>,
    /// Of the tar in it.
    pub diff_id: Digest,
}

/// An image whose documents have been read and checked.
pub struct Selected {
    pub config: ImageConfig,
    /// Bottom first.
    pub layers: Vec<Blob>,
}

/// Reads blobs and gives only those whose digest fits.
pub struct Reader<'a> {
    pub store: &'a Store,
    pub stopped: &'a dyn Fn() -> bool,
}

impl Reader<'_> {
    /// Checks that `range`, which is called `name`, has this digest.
    pub fn check(&self, name: &str, range: &FileRange, digest: &Digest) -> Result<(), Problem> {
        match digest.fits(range, self.stopped) {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => {
                Err(Problem::of(name, format!("its bytes do not have the digest {digest}: it is damaged or replaced")))
            }
            Ok(None) => Err(Problem::Interrupted),
            Err(error) => Err(Problem::of(name, format!("it cannot be read: {error}"))),
        }
    }

    fn document<T: serde::de::DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, Problem> {
        let digest = digest(&descriptor.digest)?;
        let (name, range) = (digest.path(), self.store.blob(&digest, Some(descriptor.size))?);
        self.check(&name, &range, &digest)?;
        Store::json(&name, &range)
    }

    /// The image of an image layout that `choice` means.
    pub fn layout(&self, index: &FileRange, choice: &Choice) -> Result<Selected, Problem> {
        let index: Index = Store::json("index.json", index)?;
        let (mut found, mut budget) = (Vec::new(), DESCRIPTORS_MAX);
        for descriptor in index.manifests {
            self.manifests(descriptor, &[], &mut budget, &mut found)?;
        }
        let (mut fitting, mut others) = (Vec::new(), Vec::new());
        for (names, descriptor) in found {
            if !choice.names(&names) {
                others.push(described(&names, descriptor.platform.as_ref()));
                continue;
            }
            let manifest: Manifest = self.document(&descriptor)?;
            if !is_image(&manifest) {
                continue;
            }
            let config: ImageConfig = self.document(&manifest.config)?;
            let platform = descriptor.platform.as_ref().or(config.platform.as_ref());
            let shown = described(&names, platform);
            if platform.is_none_or(|platform| choice.platform.accepts(platform)) {
                fitting.push((shown, descriptor.digest, manifest, config));
            } else {
                others.push(shown);
            }
        }
        let shown: Vec<String> = fitting.iter().map(|(shown, ..)| shown.clone()).collect();
        // One image may have several names.
        fitting.sort_by(|a, b| a.1.cmp(&b.1));
        fitting.dedup_by(|later, earlier| later.1 == earlier.1);
        if fitting.len() > 1 {
            return Err(choice.ambiguous(&shown));
        }
        let (_, _, manifest, config) = fitting.pop().ok_or_else(|| choice.nothing(&others))?;
        let layers = manifest.layers.iter().map(|layer| {
            let digest = digest(&layer.digest)?;
            let name = digest.path();
            if !is_layer(&layer.media_type) {
                let reason = format!("it is a layer of the type {:?}, which cannot be packed", layer.media_type);
                return Err(Problem::of(&name, reason));
            }
            Ok((name, self.store.blob(&digest, Some(layer.size))?, Some(digest)))
        });
        let layers = layers.collect::<Result<_, _>>()?;
        selected(config, layers)
    }

    /// Follows indices to the manifests in them.
    fn manifests(
        &self,
        descriptor: Descriptor,
        above: &[String],
        budget: &mut usize,
        found: &mut Vec<(Vec<String>, Descriptor)>,
    ) -> Result<(), Problem> {
        let reason = || Problem::of("index.json", format!("it leads to more than {DESCRIPTORS_MAX} images"));
        *budget = budget.checked_sub(1).ok_or_else(reason)?;
        let mut names = descriptor.names();
        names.extend_from_slice(above);
        if descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list") {
            let below: Index = self.document(&descriptor)?;
            return below.manifests.into_iter().try_for_each(|next| self.manifests(next, &names, budget, found));
        }
        // Attestations of a build carry this platform.
        if descriptor.platform.as_ref().is_none_or(|platform| platform.os != "unknown") {
            found.push((names, descriptor));
        }
        Ok(())
    }

    /// The image of what `docker save` writes that `choice` means.
    pub fn saved(&self, images: Vec<Saved>, choice: &Choice) -> Result<Selected, Problem> {
        let shown: Vec<String> =
            images.iter().map(|image| described(image.repo_tags.as_deref().unwrap_or_default(), None)).collect();
        let named = |image: &Saved| choice.names(image.repo_tags.as_deref().unwrap_or_default());
        let mut fitting: Vec<Saved> = images.into_iter().filter(named).collect();
        if fitting.len() > 1 {
            return Err(choice.ambiguous(&shown));
        }
        let image = fitting.pop().ok_or_else(|| choice.nothing(&shown))?;
        // The configuration is called by its digest: HEX.json, sha256:HEX or blobs/sha256/HEX.
        let stem = image.config.rsplit('/').next().unwrap_or_default();
        let hex = stem.strip_suffix(".json").unwrap_or(stem);
        let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
        let digest = Digest::parse(&format!("sha256:{hex}"))
            .ok_or_else(|| Problem::of(&image.config, "the configuration's name is not its digest"))?;
        let range = self.file(&image.config)?;
        self.check(&image.config, &range, &digest)?;
        let config: ImageConfig = Store::json(&image.config, &range)?;
        if let Some(platform) = config.platform.as_ref().filter(|platform| !choice.platform.accepts(platform)) {
            return Err(choice.nothing(&[described(image.repo_tags.as_deref().unwrap_or_default(), Some(platform))]));
        }
        let layers = image.layers.into_iter().map(|name| Ok((name.clone(), self.file(&name)?, None)));
        let layers = layers.collect::<Result<_, Problem>>()?;
        selected(config, layers)
    }

    fn file(&self, name: &str) -> Result<FileRange, Problem> {
        self.store.find(name)?.ok_or_else(|| Problem::of(name, "it is missing"))
    }
}

/// Joins layers and the digests that the configuration has for them.
fn selected(config: ImageConfig, layers: Vec<(String, FileRange, Option<Digest>)>) -> Result<Selected, Problem> {
    let ids = &config.rootfs.diff_ids;
    if ids.len() != layers.len() {
        let reason = format!("the image has {} layers and its configuration {}", layers.len(), ids.len());
        return Err(Problem::of("", reason));
    }
    let layers = layers
        .into_iter()
        .zip(ids)
        .map(|((name, range, known), id)| Ok(Blob { name, range, digest: known, diff_id: digest(id)? }));
    let layers = layers.collect::<Result<_, Problem>>()?;
    Ok(Selected { config, layers })
}

fn digest(text: &str) -> Result<Digest, Problem> {
    let reason = "it is no digest that can be checked (sha256 or sha512, in lower case)";
    Digest::parse(text).ok_or_else(|| Problem::of(&text.escape_default().to_string(), reason))
}

/// Whether a manifest is that of an image that runs, and not of an attestation or another artefact.
fn is_image(manifest: &Manifest) -> bool {
    matches!(
        manifest.config.media_type.as_str(),
        "" | "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    )
}

fn is_layer(media_type: &str) -> bool {
    let oci = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    let known = media_type.is_empty() || oci.iter().any(|prefix| media_type.starts_with(prefix));
    known && !media_type.contains("encrypted")
}

fn described(names: &[String], platform: Option<&Platform>) -> String {
    let names = if names.is_empty() { "an image without a name".to_owned() } else { names.join(" or ") };
    platform.map_or(names.clone(), |platform| format!("{names} ({platform})"))
}
