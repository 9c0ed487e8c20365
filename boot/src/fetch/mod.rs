//! Fetching an image that another one needs: with the user's consent, from below the image's remote URL, once.
//!
//! What is fetched is kept in the data directory and used only when it has the digest that was asked for or, where none
//! was, is signed by the publisher of the image that needs it.

mod address;
mod command;
mod head;
mod store;
mod stream;

use std::path::{Path, PathBuf};

use runtime::image::Digest;
use runtime::publisher::PublicKey;

use address::Address;
use store::Store;

use crate::agreement::ask;
use crate::{Failure, Message};

pub(crate) use command::run as command;
pub(crate) use store::NAME;

/// Variable by which a caller without a terminal consents.
const CONSENT: &str = "FIM_FETCH";

/// An image that is needed.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The remote URL of the image that needs it.
    pub(crate) remote: Option<&'a str>,
    /// Its path below that.
    pub(crate) path: &'a [u8],
    /// Digest of its whole file.
    pub(crate) digest: Option<Digest>,
    /// Who must have signed it when there is no digest: the verified publisher of the image that needs it.
    pub(crate) publisher: Option<PublicKey>,
    /// The data directory that it is kept in.
    pub(crate) data: &'a Path,
    /// Whether the user has consented already.
    pub(crate) agreed: bool,
}

/// The file of the image that is wanted, fetched now unless it was before. Shows a bar on a terminal.
///
/// # Errors
/// Without a remote URL that can be used; without consent, with nothing to check it by, and when it cannot be had or is not what was wanted. What
/// is not complete is gone on with by the next call, and nothing else is kept.
pub(crate) fn provider(wanted: &Wanted<'_>) -> Result<PathBuf, Failure> {
    let address = address(wanted)?;
    let store = Store::new(wanted, &address);
    if store::has(&store.file) {
        return Ok(store.file);
    }
    if wanted.digest.is_none() && wanted.publisher.is_none() {
        return Err(Message::boxed(format!(
            "{address} is not fetched: nothing could tell whether it is what is needed; give its digest (--digest, as b3sum prints it), or sign this image and that one with one key"
        )));
    }
    consent(wanted, &address)?;
    store.fill()?;
    Ok(store.file)
}

fn address(wanted: &Wanted<'_>) -> Result<Address, Failure> {
    let remote = wanted.remote.ok_or_else(|| {
        let path = String::from_utf8_lossy(wanted.path);
        Message::boxed(format!(
            "'{}' cannot be fetched: the image has no remote URL; fim-remote set URL sets one",
            path.escape_debug()
        ))
    })?;
    Ok(Address::below(remote, wanted.path)?)
}

fn consent(wanted: &Wanted<'_>, address: &Address) -> Result<(), Failure> {
    if wanted.agreed || std::env::var_os(CONSENT).is_some_and(|value| value == "1") {
        return Ok(());
    }
    match ask(&format!("Fetch {address} and keep it in {}?", wanted.data.display()))? {
        Some(true) => Ok(()),
        Some(false) => Err(Message::boxed(format!("{address} was not fetched"))),
        None => Err(Message::boxed(format!(
            "{address} is needed and was not fetched, for nobody can be asked; fim-remote fetch PATH --yes fetches it, and so does any start with {CONSENT}=1"
        ))),
    }
}
