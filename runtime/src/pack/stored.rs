//! A layer of another image of ours, which is copied as it is: every byte is checked against its digest.

use super::{Error, Progress, Summary};
use crate::image::{Image, LayerEntry};
use crate::source::ByteSource;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes copied between two reports.
const STEP: u64 = 4 << 20;

/// Copies entry `index` of the layer index of `image` into `out` at `offset`.
pub fn copy(
    image: &Image,
    index: usize,
    out: &File,
    offset: u64,
    progress: &mut dyn Progress,
) -> Result<Summary, Error> {
    let unreadable = || Error::read("read", &image.path);
    let source = image.layer_source(index).map_err(unreadable())?;
    let &LayerEntry { size, inodes, unpacked, .. } = source.entry();
    progress.total(Some(size), None);
    let (mut at, mut buffer) = (0, vec![0; STEP as usize]);
    while at < size {
        if progress.stopped() {
            return Err(Error::Interrupted);
        }
        let bytes = &mut buffer[..(size - at).min(STEP) as usize];
        source.read_exact_at(bytes, at).map_err(unreadable())?;
        let written = out.write_all_at(bytes, offset + at);
        written.map_err(|error| Error::Write(crate::squashfs::write::Error::Output(error)))?;
        at += bytes.len() as u64;
        progress.advance(bytes.len() as u64, 0);
    }
    let unpacked_bytes = Some(unpacked).filter(|&unpacked| unpacked > 0);
    Ok(Summary {
        bytes_used: size,
        bytes_padded: size,
        inodes,
        files: None,
        unpacked_bytes,
        shell: None,
        startup: Vec::new(),
    })
}
