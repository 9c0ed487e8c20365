//! `fim-layer add`: a layer file becomes the topmost layer of the image.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use runtime::extract::{self, Checked};
use runtime::image::{self, LayerFacts, LayerKind};
use runtime::mount_server::MAX_LAYERS;
use runtime::progress::Progress;
use runtime::source::{ByteSource, FileRange};
use runtime::squashfs::Archive;

use super::{embedded, rebase};
use crate::draft::is_disk_full;
use crate::interrupt::Interrupt;
use crate::progress::Listener;
use crate::{Failure, Invocation, Message, cli, publisher, stack};

/// Appends the layer in `file` to the image. Instances that run keep the stack that they have.
///
/// # Errors
/// When the file is no sound layer, and when the image cannot be changed; it is as it was then.
pub(super) fn run(invocation: &Invocation, file: &Path) -> Result<i32, Failure> {
    let count = embedded::positions(&invocation.image.config).len();
    if count >= MAX_LAYERS {
        return Err(Message::boxed(format!(
            "the image has {count} layers, and no more can be stacked; merge some with fim-layer squash"
        )));
    }
    let layer = stack::open(file.to_owned(), false)?;
    let bytes = FileRange::new(Arc::clone(&layer.file), 0, layer.len);
    let archive = Archive::open(Arc::new(bytes.clone())).map_err(|error| unsound(file, &error))?;
    // What follows it in the file is none of the layer's.
    let bytes = bytes.part(0, archive.superblock().bytes_used);
    let interrupt = Interrupt::hold()?;
    let mut listener = Listener::new(false, &interrupt);
    // Everything is read twice: to see whether it is sound, and to be copied.
    listener.total(Some(2 * bytes.len()), None);
    let checked = extract::check(&archive, &mut listener).map_err(|error| unsound(file, &error))?;
    let mut reading = Reading { bytes, at: 0, listener: &mut listener };
    let appended = append(invocation, checked, &mut reading);
    drop(listener);
    appended?;
    rebase::follow(invocation);
    publisher::tell_of_change(invocation);
    drop(interrupt);
    cli::print(&format!("Included novel layer from file '{}'\n", file.display()))?;
    Ok(0)
}

fn append(invocation: &Invocation, checked: Checked, data: &mut dyn Read) -> Result<(), Failure> {
    let facts = LayerFacts { kind: LayerKind::Squashfs, inodes: checked.inodes, unpacked: checked.unpacked };
    match image::append_layer(&invocation.path, data, facts) {
        Ok(_) => Ok(()),
        Err(error) if is_disk_full(&error) => Err(Message::boxed(format!(
            "cannot add the layer to {}: the file system is full or over quota; free some space; the image is as it was",
            invocation.path.display()
        ))),
        Err(error) => Err(error.into()),
    }
}

fn unsound(file: &Path, error: &dyn std::error::Error) -> Failure {
    let (shown, cause) = (file.display(), runtime::error::chain(error));
    Message::boxed(format!("cannot add {shown}: {cause}; a layer is a squashfs 4.0, as fim-layer create makes it"))
}

/// The bytes of a layer, one after the other.
struct Reading<'a, 'l> {
    bytes: FileRange,
    at: u64,
    listener: &'a mut Listener<'l>,
}

impl Read for Reading<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.listener.stopped() {
            return Err(io::Error::other("interrupted"));
        }
        let len = usize::try_from(self.bytes.len() - self.at).unwrap_or(buf.len()).min(buf.len());
        self.bytes.read_exact_at(&mut buf[..len], self.at)?;
        self.at += len as u64;
        self.listener.advance(len as u64, 0);
        Ok(len)
    }
}
