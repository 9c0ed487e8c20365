//! `fim inspect`: what an image says about itself. Reads no layer, of a signed image the program, and writes nothing.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use runtime::image::{self, Image, LayerEntry, NamedBit, NamedSet};
use runtime::publisher::Standing;
use serde_json::{Map, Value, json};

use crate::publisher;

/// Why an image could not be inspected or verified.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The file is the builder.
    #[error("{} is the fim program without an application; name an image built with `fim build`", .0.display())]
    NoPayload(PathBuf),
    /// Layers cannot be read.
    #[error("cannot read the layers of {}", path.display())]
    Layers {
        /// The image.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The program in the image cannot be read.
    #[error("cannot read the program in {}", path.display())]
    Program {
        /// The image.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("cannot write the result")]
    Output(#[from] io::Error),
}

/// Opens the image at `path`.
pub(crate) fn open(path: &Path) -> Result<Image, InspectError> {
    let opened = File::open(path).map_err(|source| image::Error::Open { path: path.to_owned(), source })?;
    Image::open(opened, path)?.ok_or_else(|| InspectError::NoPayload(path.to_owned()))
}

/// Prints what the image at `path` contains, as text or as JSON.
///
/// # Errors
/// When the image cannot be used or `out` fails.
pub fn run(path: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), InspectError> {
    let image = open(path)?;
    let standing = standing(&image)?;
    let written = if as_json { write_json(&to_json(&image, standing), out) } else { write_text(&image, standing, out) };
    unless_reader_left(written)
}

/// Who vouches for the image and its program.
pub(crate) fn standing(image: &Image) -> Result<Standing, InspectError> {
    Standing::whole(image).map_err(|source| InspectError::Program { path: image.path.clone(), source })
}

/// The publisher as JSON: `null`, or the key and whether its signature fits.
pub(crate) fn publisher_json(standing: Standing) -> Value {
    match standing {
        Standing::Unsigned => Value::Null,
        Standing::Signed(key) => json!({ "key": key.to_string(), "valid": true }),
        Standing::Changed(key) => json!({ "key": key.to_string(), "valid": false }),
    }
}

/// A reader that has gone ends a result quietly.
pub(crate) fn unless_reader_left(written: io::Result<()>) -> Result<(), InspectError> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes JSON as every command does: two spaces, sorted keys, text as it is, a final newline.
pub(crate) fn write_json(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn names<T: NamedBit>(set: NamedSet<T>) -> Vec<&'static str> {
    let mut names: Vec<_> = set.iter().map(NamedBit::name).collect();
    names.sort_unstable();
    names
}

/// Everything about an image as JSON. Sizes and offsets are bytes. Bytes that are not UTF-8 become U+FFFD.
#[must_use]
pub fn to_json(image: &Image, standing: Standing) -> Value {
    let config = &image.config;
    let layers: Vec<_> = config.layers.iter().map(layer_json).collect();
    let aliases = config.declared.aliases.iter().map(|alias| {
        let command: Vec<_> = alias.words.iter().map(|word| text(word)).collect();
        json!({ "command": command, "name": alias.name })
    });
    let hooks = config.declared.hooks.iter().map(|hook| {
        let command = hook.words.iter().map(|word| text(word)).collect::<Vec<_>>();
        (hook.kind.name().to_owned(), json!(command))
    });
    let binds = config.binds.iter().map(|bind| {
        json!({
            "dst": text(&bind.dst), "required": bind.required, "src": text(&bind.src), "type": bind.kind.name(),
        })
    });
    let env: Map<String, Value> = config.env.iter().map(|(key, value)| (text(key), text(value).into())).collect();
    let boot = config.boot.as_ref().map(|boot| {
        let args: Vec<_> = boot.args.iter().map(|arg| text(arg)).collect();
        json!({ "args": args, "program": text(&boot.program) })
    });
    // The stored text is JSON unless another program wrote it.
    let desktop = config.desktop.as_ref().map(|stored| match serde_json::from_str(stored) {
        Ok(value) => value,
        Err(_) => Value::from(stored.as_str()),
    });
    json!({
        "config": {
            "aliases": aliases.collect::<Vec<_>>(),
            "binds": binds.collect::<Vec<_>>(),
            "boot": boot,
            "casefold": config.casefold,
            "desktop": desktop,
            "env": env,
            "hooks": hooks.collect::<Map<_, _>>(),
            "icon": config.icon.as_ref().map(|icon| json!({ "extension": icon.extension, "layer": icon.layer })),
            "name": config.name,
            "notify": config.notify,
            "overlay": config.overlay.name(),
            "permissions": names(config.permissions),
            "portal": config.portal,
            "remote": config.remote,
            "startup": config.startup.iter().map(|path| text(path)).collect::<Vec<_>>(),
            "unshare": names(config.unshare),
        },
        "created": image.superblock.created,
        "format": image.superblock.version,
        "generation": image.generation,
        "layers": layers,
        "program_size": image.elf_len(),
        "publisher": publisher_json(standing),
        "size": image.file_len,
        "slot": image.slot.to_string(),
        "slot_fault": image.slot_fault.as_ref().map(ToString::to_string),
        "uuid": image.superblock.uuid.to_string(),
        "version": config.declared.version,
    })
}

fn layer_json(layer: &LayerEntry) -> Value {
    json!({
        "chunk_size": layer.chunks.chunk_size,
        "digest": layer.digest.to_string(),
        "inodes": layer.inodes,
        "kind": layer.kind.name(),
        "offset": layer.offset,
        "ratio": ratio(layer),
        "size": layer.size,
        "unpacked": layer.unpacked,
    })
}

/// Packed by unpacked size in thousandths, rounded; nothing when the unpacked size is unknown.
fn ratio(layer: &LayerEntry) -> Option<f64> {
    (layer.unpacked > 0).then(|| (layer.size as f64 / layer.unpacked as f64 * 1000.0).round() / 1000.0)
}

fn listed(names: &[impl AsRef<str>]) -> String {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn write_text(image: &Image, standing: Standing, out: &mut dyn Write) -> io::Result<()> {
    let config = &image.config;
    writeln!(out, "name:         {}", config.name)?;
    if let Some(version) = &config.declared.version {
        writeln!(out, "version:      {version}")?;
    }
    writeln!(out, "publisher:    {}", publisher::describe(standing))?;
    writeln!(out, "uuid:         {}", image.superblock.uuid)?;
    writeln!(out, "format:       {}", image.superblock.version)?;
    writeln!(out, "size:         {} bytes, of which the program {}", image.file_len, image.elf_len())?;
    writeln!(out, "created:      {} (seconds since 1970)", image.superblock.created)?;
    writeln!(out, "config:       generation {} in slot {}", image.generation, image.slot)?;
    if let Some(fault) = &image.slot_fault {
        writeln!(out, "warning:      config slot {} cannot be used: {fault}", image.slot.other())?;
    }
    if let Some(boot) = &config.boot {
        let words = std::iter::once(&boot.program).chain(&boot.args).map(|word| text(word));
        writeln!(out, "boot:         {}", words.collect::<Vec<_>>().join(" "))?;
    }
    writeln!(out, "permissions:  {}", listed(&names(config.permissions)))?;
    writeln!(out, "portal:       {}", listed(&config.portal))?;
    writeln!(out, "overlay:      {}", config.overlay.name())?;
    for (key, value) in &config.env {
        writeln!(out, "env:          {}={}", text(key), text(value))?;
    }
    for bind in &config.binds {
        writeln!(out, "bind:         {} {} {}", bind.kind.name(), text(&bind.src), text(&bind.dst))?;
    }
    for hook in &config.declared.hooks {
        let words = hook.words.iter().map(|word| text(word)).collect::<Vec<_>>();
        writeln!(out, "hook:         {} {}", hook.kind.name(), words.join(" "))?;
    }
    for alias in &config.declared.aliases {
        let words = alias.words.iter().map(|word| text(word)).collect::<Vec<_>>();
        writeln!(out, "alias:        {} {}", alias.name, words.join(" "))?;
    }
    for (index, layer) in config.layers.iter().enumerate() {
        let ratio = ratio(layer).map_or_else(String::new, |ratio| format!(" (ratio {ratio})"));
        writeln!(out, "layer {index}:")?;
        writeln!(out, "  kind:       {}, {} inodes", layer.kind.name(), layer.inodes)?;
        writeln!(out, "  offset:     {}", layer.offset)?;
        writeln!(out, "  size:       {} bytes, unpacked {}{ratio}", layer.size, layer.unpacked)?;
        writeln!(out, "  blake3:     {}", layer.digest)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify;
    use runtime::image::{Config, ImageWriter, LayerFacts, LayerKind, WriterOptions};

    /// An image around `sh`, which is an ELF program on every Linux.
    fn image() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let elf = std::fs::read("/bin/sh").unwrap();
        let mut writer = ImageWriter::create(file, &path, &elf, WriterOptions::default()).unwrap();
        let facts = LayerFacts { kind: LayerKind::Squashfs, inodes: 2, unpacked: 30 };
        writer.add_layer(&mut &b"twelve bytes"[..], facts).unwrap();
        let env = vec![(b"Z".to_vec(), "Zoë".into()), (b"A".to_vec(), b"1".to_vec())];
        writer.finish(Config { name: "app".to_owned(), env, ..Config::default() }).unwrap();
        (directory, path)
    }

    fn output(run: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        run(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_sorted_raw_and_ends_with_a_newline() {
        let (_directory, path) = image();
        let printed = output(|out| run(&path, true, out).unwrap());
        assert!(
            printed.starts_with("{\n  \"config\": {\n    \"aliases\": [],\n    \"binds\": [],\n    \"boot\": null,"),
            "{printed}"
        );
        assert!(printed.contains("\"env\": {\n      \"A\": \"1\",\n      \"Z\": \"Zoë\"\n    }"), "{printed}");
        assert!(printed.contains("\"ratio\": 0.4,\n      \"size\": 12,"), "{printed}");
        assert!(printed.ends_with(",\n  \"version\": null\n}\n"), "{printed}");
    }

    #[test]
    fn text_names_every_layer() {
        let (_directory, path) = image();
        let printed = output(|out| run(&path, false, out).unwrap());
        assert!(printed.contains("permissions:  none\n"), "{printed}");
        assert!(printed.contains("  size:       12 bytes, unpacked 30 (ratio 0.4)\n"), "{printed}");
    }

    #[test]
    fn verify_says_what_is_damaged() {
        let (_directory, path) = image();
        let mut sound = false;
        let printed = output(|out| sound = verify::run(&path, false, None, out).unwrap());
        assert!(sound && printed == "every digest matches: 12 bytes, layers: 1\npublisher: none\n", "{printed}");
        let offset = open(&path).unwrap().config.layers[0].offset;
        let file = File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"T", offset).unwrap();
        let printed = output(|out| sound = verify::run(&path, true, None, out).unwrap());
        let value: Value = serde_json::from_str(&printed).unwrap();
        assert!(!sound && value["damaged"][0]["offset"] == offset && value["sound"] == false, "{printed}");
    }

    #[test]
    fn the_builder_is_named() {
        let error = run(Path::new("/bin/sh"), false, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("without an application"), "{error}");
    }
}
