//! The configuration of a new image: what the source says, and what the command line says on top of it.

use runtime::image::{Boot, Config};
use runtime::pack::Startup;

use super::options::words;
use super::{Arguments, Variable};
use crate::launch::environment;

/// The configuration; `source` is what the source says about itself.
pub(super) fn config(arguments: &Arguments, source: Config) -> Config {
    let mut config = source;
    if let Some(name) = &arguments.name {
        config.name.clone_from(name);
    } else if config.name.is_empty() {
        config.name = arguments.output.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    }
    if let Some(version) = &arguments.version {
        config.declared.version = Some(version.clone());
    }
    // Of another image, even where it has the same content.
    config.declared.publisher = None;
    let boot = words(arguments.boot.as_ref(), &arguments.boot_arg);
    if let Some((program, args)) = boot.split_first() {
        config.boot = Some(Boot { program: program.clone(), args: args.to_vec() });
    }
    for permission in arguments.perms.iter().flat_map(|set| set.iter()) {
        config.permissions.insert(permission);
    }
    for Variable { name, value } in &arguments.env {
        config.env.retain(|(stored, _)| stored != name);
        config.env.push((name.clone(), value.clone()));
    }
    config
}

/// What the image starts with, looked up where a guest looks, and what a run has read.
pub(super) fn startup(config: &Config, read: &[Vec<u8>]) -> Startup {
    let own = config.env.iter().find(|(name, _)| name == b"PATH").map(|(_, value)| value.clone());
    let path = own.unwrap_or_else(|| environment::PATH.into());
    Startup {
        command: config.boot.as_ref().map(|boot| boot.program.clone()),
        path: path.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect(),
        read: read.to_vec(),
    }
}
