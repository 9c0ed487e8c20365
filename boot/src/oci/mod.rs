//! `fim-oci`: an image for engines of containers.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use runtime::export::{self, Settings};
use runtime::image::Config;
use runtime::progress::Progress;
use runtime::source::FileRange;
use runtime::squashfs::Archive;

use crate::draft::{Draft, Use, is_disk_full};
use crate::interrupt::Interrupt;
use crate::launch::{data, facts};
use crate::progress::Listener;
use crate::version::Build;
use crate::{Failure, Invocation, Message, report, stack};

const OUTPUT: Use = Use { mode: 0o666, fix: "name another file, or remove that one first" };

/// Runs the command.
///
/// # Errors
/// Wrong arguments, and whatever keeps the archive from being complete; nothing is left then.
pub fn run(invocation: &Invocation, words: &[OsString], build: Build) -> Result<i32, Failure> {
    let operation = words.first().map(|word| word.to_string_lossy().to_lowercase());
    match operation.as_deref() {
        Some("export") => {
            let (file, name) = arguments(&words[1..])?;
            export(invocation, Path::new(file), name, build)
        }
        Some(_) => Err(Message::boxed("Invalid oci operation; use fim-oci export FILE")),
        None => Err(Message::boxed("Missing op for 'fim-oci' (<export>)")),
    }
}

/// The file, and the name that was given.
fn arguments(words: &[OsString]) -> Result<(&OsStr, Option<&str>), Failure> {
    let (mut file, mut name) = (None, None);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--name" && name.is_none() {
            let given = rest.next().and_then(|name| name.to_str()).filter(|name| is_reference(name));
            name = Some(given.ok_or_else(|| {
                Message::boxed("--name needs a name such as app:1.0: lower case letters, digits, '.', '_', '-' and '/'")
            })?);
        } else if file.is_none() {
            file = Some(word.as_os_str());
        } else {
            return Err(crate::cli::trailing_arguments("oci export", &[word]));
        }
    }
    let file =
        file.ok_or_else(|| Message::boxed("Missing file for 'export': fim-oci export FILE [--name NAME:TAG]"))?;
    Ok((file, name))
}

/// Whether engines take it for `name:tag`.
fn is_reference(name: &str) -> bool {
    let (path, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && part.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit())
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
    };
    let tag_fits = (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    tag_fits && path.split('/').all(part)
}

/// The image's own name as engines take it.
fn reference(name: &str) -> String {
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let mapped: String = name.to_lowercase().chars().map(|letter| if fits(letter) { letter } else { '-' }).collect();
    let path = mapped.trim_matches('-');
    format!("{}:latest", if path.is_empty() { "app" } else { path })
}

fn export(invocation: &Invocation, file: &Path, name: Option<&str>, build: Build) -> Result<i32, Failure> {
    let shown = file.display();
    if std::fs::symlink_metadata(file).is_ok() {
        return Err(Message::boxed(format!("Destination file already exists: {shown}; {}", OUTPUT.fix)));
    }
    let layers = layers(invocation)?;
    let config = &invocation.image.config;
    let mut settings = settings(config, &layers);
    settings.reference = name.map_or_else(|| reference(&config.name), tagged);
    settings.created = invocation.image.superblock.created;
    settings.made_by = format!("fim {}", build.short());
    // Dropped last, so that a signal finds the draft gone.
    let interrupt = Interrupt::hold()?;
    let (draft, scratch) = (Draft::create(file, OUTPUT)?, Draft::scratch(file)?);
    let mut listener = Listener::new(false, &interrupt);
    listener.total(crate::extract::unpacked(&invocation.image), None);
    let written = export::oci(&layers, &settings, &scratch, &draft.file, &mut listener);
    drop(listener);
    let omitted = written.map_err(|error| unwritten(error.into(), file))?;
    draft.complete(false)?;
    drop(interrupt);
    if omitted.sockets > 0 {
        report(&format!("note: {} sockets are not in {shown}: a container layer cannot hold them", omitted.sockets));
    }
    tell_of_changes(invocation);
    crate::cli::print(&format!("Exported {} to '{shown}'\n", settings.reference))?;
    Ok(0)
}

fn tagged(name: &str) -> String {
    if name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

fn unwritten(error: Failure, file: &Path) -> Failure {
    let hint = if is_disk_full(error.as_ref()) {
        ": the file system is full or over quota; free some space or choose another place"
    } else {
        ""
    };
    let cause = runtime::error::chain(error.as_ref());
    Message::boxed(format!("cannot export to {}{hint}: {cause}; nothing was left", file.display()))
}

/// The whole stack, as a start would have it.
fn layers(invocation: &Invocation) -> Result<Vec<Archive>, Failure> {
    let image = &invocation.image;
    let mut layers = crate::extract::layers(image)?;
    let caller = facts::caller();
    let data = data::existing(invocation, &caller);
    for layer in stack::external(image, &caller, data.as_deref())? {
        let source = Arc::new(FileRange::new(Arc::<File>::clone(&layer.file), 0, layer.len));
        layers.push(Archive::open(source).map_err(|error| {
            let cause = runtime::error::chain(&error);
            Message::boxed(format!("cannot read the layer {}: {cause}; nothing was exported", layer.path.display()))
        })?);
    }
    Ok(layers)
}

/// What an engine starts. What cannot be said to one is told to the user.
fn settings(config: &Config, layers: &[Archive]) -> Settings {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut settings = Settings::default();
    match &config.boot {
        Some(boot) => {
            settings.entrypoint = std::iter::once(&boot.program).chain(&boot.args).map(|word| text(word)).collect();
        }
        None => {
            settings.command =
                export::find_shell(layers).map(|shell| format!("/{}", text(shell))).into_iter().collect();
        }
    }
    for (name, value) in &config.env {
        if value.contains(&b'$') {
            report(&format!(
                "note: the value of {} refers to other variables, which engines of containers do not replace",
                text(name)
            ));
        }
        settings.environment.push(format!("{}={}", text(name), text(value)));
    }
    let stored = |name: &[u8]| config.env.iter().find(|(stored, _)| stored == name).map(|(_, value)| text(value));
    let number = |value: String| value.parse::<u32>().ok();
    if let Some(uid) = stored(b"UID").and_then(number) {
        let gid = stored(b"GID").and_then(number);
        settings.user = gid.map_or_else(|| uid.to_string(), |gid| format!("{uid}:{gid}"));
    }
    settings
}

/// What is not committed is not exported.
fn tell_of_changes(invocation: &Invocation) {
    let Some(data) = data::existing(invocation, &facts::caller()) else { return };
    let root = data.join("root");
    if std::fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()) {
        report(&format!(
            "note: changes in {} are not exported; save them with fim-layer commit first",
            root.as_os_str().as_bytes().escape_ascii()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_engines_take() {
        for name in ["app", "app:1.0", "team/app:V_2", "a.b-c_d"] {
            assert!(is_reference(name), "{name}");
        }
        for name in ["", "App", "app:", "app:-x", "-app", "app/", "a b", "app:x:y/", "ä"] {
            assert!(!is_reference(name), "{name}");
        }
        assert_eq!(reference("My App"), "my-app:latest");
        assert_eq!(reference("--"), "app:latest");
        assert!(is_reference(&reference("Zoë 2.0")));
        assert_eq!(tagged("host/app"), "host/app:latest");
        assert_eq!(tagged("app:1"), "app:1");
    }
}
