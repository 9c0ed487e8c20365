//! Which producers serve the plugs of an image: those that were connected, else one beside the image by the same
//! publisher, else its default provider.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use runtime::content::difference;
use runtime::image::declared::{Connection, Plug, Slot};
use runtime::publisher::{PublicKey, verified_publisher};
use runtime::sys::descriptor;

use super::producer::Producer;
use super::supply::Supply;
use super::{beside, connect, declare};
use crate::fetch::{self, Wanted};
use crate::launch::data;
use crate::launch::facts::{self, Caller, Facts};
use crate::{Failure, Invocation, Message, agreement, limit, report};

/// A slot of a producer.
type Found = (Rc<Producer>, Slot);

/// Looks for producers.
pub(super) struct Search<'a> {
    invocation: &'a Invocation,
    caller: &'a Caller,
    /// Whether this is for a start, which fetches what is missing.
    fetches: bool,
    /// Whether somebody can be asked.
    asks: bool,
    /// Those that were opened, so that one which serves several plugs is mounted once.
    open: Vec<Rc<Producer>>,
}

/// Why a plug gets nothing.
pub(super) enum Without {
    /// There is no producer; where it was looked for.
    Missing(String),
    /// There is one, and it cannot be used.
    Unusable(Failure),
}

impl From<Failure> for Without {
    fn from(failure: Failure) -> Self {
        Self::Unusable(failure)
    }
}

/// What every plug of the image gets in this start.
///
/// # Errors
/// A plug that is not optional and gets nothing; targets that cannot be.
pub(crate) fn resolve(invocation: &Invocation, facts: &Facts) -> Result<Vec<Supply>, Failure> {
    let plugs = &invocation.image.config.declared.plugs;
    if plugs.is_empty() {
        return Ok(Vec::new());
    }
    let asks = facts.foreground && facts.terminals[0] && facts.terminals[2];
    let mut search = Search { asks, fetches: true, ..Search::new(invocation, &facts.caller) };
    let mut supplies = Vec::new();
    for plug in plugs {
        let target = declare::target(plug)?;
        let supply = search.producers(plug).and_then(|from| Ok(Supply::new(plug, target, from, &facts.caller)?));
        match supply {
            Ok(supply) => supplies.push(supply),
            Err(Without::Missing(text)) if plug.optional => log::debug!("{text}"),
            Err(Without::Unusable(why)) if plug.optional => report(&format!(
                "warning: the optional plug '{}' gets nothing: {}",
                plug.name,
                runtime::error::chain(why.as_ref())
            )),
            Err(Without::Missing(text)) => return Err(Message::boxed(text)),
            Err(Without::Unusable(why)) => return Err(why),
        }
    }
    Ok(supplies)
}

impl<'a> Search<'a> {
    /// One that only looks.
    pub(super) fn new(invocation: &'a Invocation, caller: &'a Caller) -> Self {
        // Each producer is an open file.
        descriptor::raise_limit();
        Self { invocation, caller, asks: false, fetches: false, open: Vec::new() }
    }

    /// The slots that serve a plug.
    pub(super) fn producers(&mut self, plug: &Plug) -> Result<Vec<Found>, Without> {
        let declared = &self.invocation.image.config.declared;
        let connected: Vec<&Connection> =
            declared.connections.iter().filter(|connection| connection.plug == plug.name).collect();
        if !connected.is_empty() {
            return connected.into_iter().map(|connection| self.connected(plug, connection)).collect();
        }
        let mut looked = vec!["nothing is connected".to_owned()];
        if let Some(found) = self.beside(plug, &mut looked) {
            return Ok(vec![found]);
        }
        if let Some(provider) = &plug.provider
            && let Some(found) = self.default_provider(plug, provider, &mut looked)?
        {
            return Ok(vec![found]);
        }
        Err(Without::Missing(format!(
            "the plug '{0}' (content '{1}') has no producer: {2}; connect one: fim-content connect {0} FILE",
            plug.name,
            plug.content,
            looked.join("; ")
        )))
    }

    fn open(&mut self, path: &Path) -> Result<Rc<Producer>, Failure> {
        if let Some(known) = self.open.iter().find(|producer| producer.path == path) {
            return Ok(Rc::clone(known));
        }
        let producer = Rc::new(Producer::open(path, self.caller)?);
        self.open.push(Rc::clone(&producer));
        Ok(producer)
    }

    /// The producer of a connection, as long as it is what the user consented to.
    fn connected(&mut self, plug: &Plug, connection: &Connection) -> Result<Found, Without> {
        let path = PathBuf::from(OsStr::from_bytes(&connection.file));
        let name = &plug.name;
        let failed = |why: &dyn std::fmt::Display| {
            Message::boxed(format!(
                "the plug '{name}' (content '{}') is connected to {}:{}, and {why}; connect another producer, or \
                 fim-content disconnect {name}",
                plug.content,
                path.display(),
                connection.slot
            ))
        };
        let unusable = |error: Failure| match runtime::error::chain(error.as_ref()) {
            // Another producer would not help.
            why if limit::is_reached(&why) => error,
            why => failed(&why),
        };
        let producer = self.open(&path).map_err(unusable)?;
        let slot = producer.slot(plug, Some(&connection.slot)).map_err(|unfit| failed(&unfit))?;
        let now = producer.identity(&slot);
        if let Some(change) = difference(&connection.identity, &now) {
            let shown = format!("{}:{}", path.display(), connection.slot);
            let question = format!(
                "The producer {shown} of the plug '{name}' is not what it was when it was connected: {change}. Use it?"
            );
            if !self.asks || agreement::ask(&question)? != Some(true) {
                return Err(Without::Unusable(Message::boxed(format!(
                    "the producer {shown} of the plug '{name}' is not what it was when it was connected: {change}; \
                     fim-content connect {name} {shown} accepts it"
                ))));
            }
            connect::store(self.invocation, plug, &producer, &slot, false)?;
        }
        Ok((producer, slot))
    }

    /// An image beside this one, when both have the same publisher.
    fn beside(&mut self, plug: &Plug, looked: &mut Vec<String>) -> Option<Found> {
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        let publisher = self.publisher();
        for (producer, slot) in beside::fitting(&self.invocation.path, plug, self.caller) {
            let same = publisher.is_some() && producer.publisher() == publisher;
            if same { &mut ours } else { &mut others }.push((producer, slot));
        }
        if let [_] = ours[..] {
            let (producer, slot) = ours.remove(0);
            log::debug!("The plug '{}' gets what {} shares", plug.name, producer.path.display());
            let known = self.open.iter().find(|known| known.path == producer.path).cloned();
            let producer = known.unwrap_or_else(|| {
                let producer = Rc::new(producer);
                self.open.push(Rc::clone(&producer));
                producer
            });
            return Some((producer, slot));
        }
        let place = facts::directory(&self.invocation.path).display();
        let shown = |found: &[(Producer, Slot)]| {
            let names: Vec<String> = found.iter().map(|(producer, _)| producer.path.display().to_string()).collect();
            names.join(", ")
        };
        looked.push(match (&ours[..], &others[..]) {
            ([], []) => format!("no image in {place} has a slot for it"),
            ([], others) => format!("{} could serve it, and has not the same publisher", shown(others)),
            (ours, _) => format!("{} could serve it, and only one is taken by itself", shown(ours)),
        });
        None
    }

    fn publisher(&self) -> Option<PublicKey> {
        verified_publisher(&self.invocation.image)
    }

    /// The file that the plug itself names; whether it is taken is the user's choice, unless it has the same publisher.
    fn default_provider(
        &mut self,
        plug: &Plug,
        provider: &[u8],
        looked: &mut Vec<String>,
    ) -> Result<Option<Found>, Without> {
        let beside = facts::directory(&self.invocation.path).join(OsStr::from_bytes(provider));
        let (path, fetched) = if beside.exists() {
            (beside, false)
        } else {
            looked.push(format!("its default provider {} does not exist", beside.display()));
            let Some(path) = self.fetched(plug, provider, looked)? else { return Ok(None) };
            (path, true)
        };
        let name = &plug.name;
        let failed = |why: &dyn std::fmt::Display| {
            Message::boxed(format!(
                "the default provider {} of the plug '{name}' (content '{}') cannot be used: {why}",
                path.display(),
                plug.content
            ))
        };
        let producer = self.open(&path)?;
        let slot = producer.slot(plug, None).map_err(|unfit| failed(&unfit))?;
        // Who had it fetched has agreed to it, and it was what was wanted.
        if fetched {
            connect::store(self.invocation, plug, &producer, &slot, false)?;
            return Ok(Some((producer, slot)));
        }
        if self.publisher().is_some() && producer.publisher() == self.publisher() {
            return Ok(Some((producer, slot)));
        }
        let question = format!("Connect the plug '{name}' (content '{}') to {}?", plug.content, path.display());
        if !self.asks || agreement::ask(&question)? != Some(true) {
            return Err(Without::Unusable(failed(&format!(
                "it has not the same publisher, so that it is to be connected once: fim-content connect {name} {}",
                path.display()
            ))));
        }
        connect::store(self.invocation, plug, &producer, &slot, false)?;
        Ok(Some((producer, slot)))
    }

    /// The default provider from below the remote URL of the image, where there is one, in the data directory. It has the
    /// digest of the plug, or the same publisher.
    fn fetched(&self, plug: &Plug, provider: &[u8], looked: &mut Vec<String>) -> Result<Option<PathBuf>, Failure> {
        let Some(remote) = self.invocation.image.config.remote.as_deref() else {
            looked.push("there is no remote URL to fetch it from (fim-remote set URL)".to_owned());
            return Ok(None);
        };
        if !self.fetches {
            looked.push(format!("a start would ask to fetch it from below {remote}"));
            return Ok(None);
        }
        let data = data::prepare_of(self.invocation, self.caller, self.invocation.installation.key.as_ref())?;
        let wanted = Wanted {
            remote: Some(remote),
            path: provider,
            digest: plug.digest,
            publisher: self.publisher(),
            data: &data,
            agreed: false,
        };
        let why = |error: Failure| {
            Message::boxed(format!(
                "the plug '{}' (content '{}') has no producer: {}; {}",
                plug.name,
                plug.content,
                looked.join("; "),
                runtime::error::chain(error.as_ref())
            ))
        };
        fetch::provider(&wanted).map(Some).map_err(why)
    }
}
