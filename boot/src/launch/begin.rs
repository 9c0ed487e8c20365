//! Starting the mount server of a new session.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use nix::unistd::Pid;
use runtime::medium::Medium;
use runtime::mount_server::content::{self, Content, Producers};
use runtime::mount_server::{self, Layer, Lower, Refused, Request, Stack, ThrowAway, reads};
use runtime::sandbox::points::Point;
use runtime::session::lock;
use runtime::source::{ByteSource, FileRange};
use runtime::sys::process;

use super::facts::Caller;
use super::rung::Rung;
use super::session::Server;
use crate::content::Producer;
use crate::interrupt::Interrupt;
use crate::stack::External;
use crate::{Failure, Invocation, Message, cache};

/// A mount server that is to be started.
pub(super) struct Beginning<'a> {
    pub invocation: &'a Invocation,
    pub data: &'a Path,
    pub directory: &'a Path,
    pub caller: &'a Caller,
    pub rung: &'a Rung,
    /// Layers outside of the image.
    pub external: &'a [External],
    /// The layer on top of those, of a throw-away session only.
    pub packed: Option<&'a External>,
    /// What stacks the layers.
    pub stack: Stack,
    /// What shapes the stack, for the session record.
    pub shape: Vec<String>,
    /// Files that the session reads ahead.
    pub startup: &'a [Vec<u8>],
    /// Mount points that layouts need.
    pub points: Vec<Point>,
    /// Set for a throw-away session.
    pub throw_away: Option<ThrowAway>,
    /// What the plugs of the image get.
    pub plugs: Vec<content::Plug>,
    /// From whom.
    pub producers: Vec<Rc<Producer>>,
}

impl Beginning<'_> {
    /// Starts it and waits until it has made the session's namespaces. On a host without FUSE, a second one gets extracted
    /// layers.
    pub(super) fn begin(
        &self,
        held: lock::Held,
        interrupt: &mut Option<Interrupt>,
    ) -> Result<(OwnedFd, Server, Pid), Failure> {
        let content = crate::content::images(&self.plugs, &self.producers)?;
        match self.server(Lower::Image(self.layers()?), content, held)? {
            Ok(begun) => {
                log::debug!("Layers: mounted through FUSE");
                Ok(begun)
            }
            Err(why) if self.stack != Stack::Kernel || self.packed.is_some() => {
                Err(Message::boxed(format!("{}: {why}", mount_server::diagnose::userspace_without_fuse())))
            }
            Err(why) => {
                log::debug!("Layers: extracted, for {why}");
                // The first server has the session lock until it is gone.
                let held = lock::wait(self.data, lock::SESSION)?;
                let own = *self.rung != Rung::Every;
                let mut extract = |image, external| cache::layers(image, external, self.caller, own, &why, interrupt);
                let layers = extract(&self.invocation.image, self.external)?;
                let producers = self.producers.iter().map(|producer| extract(producer.image(), &[]));
                let producers = Producers::Extracted(producers.collect::<Result<_, _>>()?);
                let content = Content { producers, plugs: self.plugs.clone() };
                self.server(Lower::Extracted(layers), content, held)?.map_err(Message::boxed)
            }
        }
    }

    fn layers(&self) -> Result<Vec<Layer>, Failure> {
        let (image, path) = (&self.invocation.image, self.invocation.path.display());
        let mut layers = Vec::new();
        for index in image.root_layers() {
            let source: Arc<dyn ByteSource> = Arc::new(image.layer_source(index)?);
            log::debug!("Mounting layer from '{path}' with offset '{}'", image.config.layers[index].offset);
            log::debug!("Overlay layer '{index}'");
            let name = format!("layer {index} of {path}");
            layers.push(Layer { name, source, medium: self.invocation.medium() });
        }
        for layer in self.external.iter().chain(self.packed) {
            let path = layer.path.display();
            log::debug!("Mounting layer from '{path}' with offset '0'");
            log::debug!("Overlay layer '{}'", layers.len());
            let source = Arc::new(FileRange::new(Arc::clone(&layer.file), 0, layer.len));
            let medium = Medium::new(Arc::clone(&layer.file), 0);
            layers.push(Layer { name: format!("the layer {path}"), source, medium });
        }
        Ok(layers)
    }

    /// Starts a server; why not, in the inner result, when the host has no FUSE.
    fn server(
        &self,
        lower: Lower,
        content: Content,
        held: lock::Held,
    ) -> Result<Result<(OwnedFd, Server, Pid), String>, Failure> {
        let ids = self.rung.session(self.caller);
        let mut starting = mount_server::start(Request {
            lower,
            stack: self.stack,
            directory: self.directory.to_owned(),
            data: self.data.to_owned(),
            ids: ids.clone(),
            lock: held,
            image: self.invocation.image.superblock.uuid.0,
            shape: self.shape.clone(),
            startup: self.startup.to_vec(),
            points: self.points.clone(),
            reads: self.caller.variable(reads::VARIABLE).map(Into::into),
            throw_away: self.throw_away.clone(),
            content,
        })?;
        let (pid, server) = (starting.pid(), process::pidfd_open(starting.pid())?);
        match starting.namespaces(&ids, self.rung.helpers(self.caller).as_ref()) {
            Ok(()) => Ok(Ok((server, Server::Starting(starting), pid))),
            Err(Refused::NoFuse(why)) => {
                // Nobody else waits for this child.
                let _ = nix::sys::wait::waitpid(pid, None);
                Ok(Err(why))
            }
            Err(Refused::Other(text)) => Err(Message::boxed(text)),
        }
    }
}
