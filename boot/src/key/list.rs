//! `fim-key list`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use runtime::image::{Config, NamedBit};
use runtime::installation::revision::Revision;
use runtime::installation::{Asked, Installation, Key, Own};
use serde_json::json;

use super::select;
use crate::instance::session::Session;
use crate::launch::data;
use crate::launch::facts::{self, Caller};
use crate::settings::print_json;
use crate::{Failure, Invocation, cli, inspect};

/// One key as it is shown.
struct Entry {
    key: Key,
    link: Option<PathBuf>,
    data: Option<PathBuf>,
    image: PathBuf,
    instances: Vec<u64>,
    own: Vec<&'static str>,
    revision: Option<u32>,
}

/// Prints `KEY:IDs of its instances:image`, a line for each key, or a JSON array.
pub(super) fn run(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    let caller = facts::caller();
    let entries = all(invocation, &caller).into_iter().map(|key| entry(invocation, &caller, key));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    if as_json {
        return print_json(&entries.iter().map(|entry| describe(invocation, entry)).collect());
    }
    let line = |entry: &Entry| {
        let ids: Vec<String> = entry.instances.iter().map(u64::to_string).collect();
        format!("{}:{}:{}\n", entry.key, ids.join(" "), entry.image.display())
    };
    cli::print(&entries.iter().map(line).collect::<String>()).map(|()| 0)
}

/// Every key that has data or a link beside the image.
fn all(invocation: &Invocation, caller: &Caller) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    for directory in data::keys(invocation, caller) {
        let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let with_data = |key: &Key| data::existing_of(invocation, caller, Some(key)).is_some();
        keys.extend(names.filter_map(|name| Key::parse(name).ok()).filter(with_data));
    }
    let beside = fs::read_dir(facts::directory(&invocation.path)).into_iter().flatten().flatten();
    keys.extend(beside.filter_map(|entry| of_link(invocation, &entry.path())));
    keys
}

/// The key that a file beside the image stands for, when it is a link to it.
fn of_link(invocation: &Invocation, path: &Path) -> Option<Key> {
    let asked = Asked { executed: &[path.to_owned()], ..Asked::default() };
    let key = Installation::choose(&invocation.path, asked).ok()?.key?;
    fs::canonicalize(path).is_ok_and(|target| target == invocation.path).then_some(key)
}

fn entry(invocation: &Invocation, caller: &Caller, key: Key) -> Result<Entry, Failure> {
    let beside = fs::read_dir(facts::directory(&invocation.path)).into_iter().flatten().flatten();
    let link = beside.map(|entry| entry.path()).find(|path| of_link(invocation, path).as_ref() == Some(&key));
    let data = data::existing_of(invocation, caller, Some(&key));
    let image = data.as_deref().and_then(|data| own_image(invocation, data));
    let image = image.unwrap_or_else(|| invocation.path.clone());
    let own = data.as_deref().map(Own::read).transpose()?.unwrap_or_default();
    let own = own.settings().iter().map(NamedBit::name).collect();
    let instances = data.as_deref().map(instances).unwrap_or_default();
    // One that cannot be read is for a start to complain of.
    let revision = data.as_deref().and_then(|data| Revision::read(data).ok()?).map(|revision| revision.current);
    Ok(Entry { key, link, data, image, instances, own, revision })
}

/// IDs of the live instances of a data directory.
fn instances(data: &Path) -> Vec<u64> {
    let live = Session::of(data.to_owned()).map(|session| session.registry.live());
    live.and_then(Result::ok).unwrap_or_default().iter().map(|instance| instance.id).collect()
}

/// Every key as an installation, with its configuration and its data.
///
/// # Errors
/// Settings and images that cannot be read.
pub(crate) fn configurations(
    invocation: &Invocation,
    caller: &Caller,
) -> Result<Vec<(Installation, Config, Option<PathBuf>)>, Failure> {
    let configuration = |key: Key| {
        let data = data::existing_of(invocation, caller, Some(&key));
        let image = data.as_deref().and_then(|data| own_image(invocation, data));
        let image = image.map(|image| inspect::open(&image)).transpose()?;
        let inherited = image.as_ref().map_or(&invocation.image.config, |image| &image.config);
        let own = data.as_deref().map(Own::read).transpose()?.unwrap_or_default();
        Ok((invocation.installation.with_key(Some(key)), own.over(inherited), data))
    };
    all(invocation, caller).into_iter().map(configuration).collect()
}

/// The image that a key has instead of this one.
fn own_image(invocation: &Invocation, data: &Path) -> Option<PathBuf> {
    select::image_in(data, invocation).map(|(_, image)| image)
}

fn describe(invocation: &Invocation, entry: &Entry) -> serde_json::Value {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    json!({
        "data": entry.data.as_deref().map(path),
        "image": path(&entry.image),
        "instances": entry.instances,
        "key": entry.key.as_str(),
        "link": entry.link.as_deref().map(path),
        "name": invocation.installation.with_key(Some(entry.key.clone())).instance_name().to_string_lossy(),
        "revision": entry.revision,
        "settings": entry.own,
    })
}
