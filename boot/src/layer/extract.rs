//! `fim-layer extract`: one layer as a directory, with the marks by which it takes away what lower layers have.

use std::path::Path;
use std::sync::Arc;

use runtime::extract::{self, Error};
use runtime::progress::Progress;
use runtime::source::FileRange;
use runtime::squashfs::Archive;

use super::embedded;
use super::list::external;
use crate::{Failure, Invocation, Message};

/// Extracts the layer with this index of the stack to a directory that does not exist, or is empty.
///
/// # Errors
/// When there is no such layer or it is damaged, and when the file system refuses; nothing is left then.
pub(super) fn run(invocation: &Invocation, index: usize, directory: &Path) -> Result<i32, Failure> {
    let image = &invocation.image;
    let positions = embedded::positions(&image.config);
    let (path, opened, total) = match positions.get(index) {
        Some(position) => {
            let unpacked = image.config.layers[*position].unpacked;
            let source = Arc::new(image.layer_source(*position)?);
            (invocation.path.clone(), Archive::open(source), Some(unpacked).filter(|bytes| *bytes > 0))
        }
        None => {
            let outside = external(invocation)?;
            let count = positions.len() + outside.len();
            let layer = outside.into_iter().nth(index - positions.len()).ok_or_else(|| {
                Message::boxed(format!("there is no layer {index}: the stack has {count}; fim-layer list shows them"))
            })?;
            let source = Arc::new(FileRange::new(Arc::clone(&layer.file), 0, layer.len));
            (layer.path, Archive::open(source), None)
        }
    };
    let layer = opened.map_err(|error| {
        let (shown, cause) = (path.display(), runtime::error::chain(&error));
        Message::boxed(format!("cannot read layer {index}, {shown}: {cause}; nothing was extracted"))
    })?;
    crate::extract::into(directory, false, |part, listener| {
        listener.total(total, None);
        extract::extract_layer(&layer, part, false, listener).map_err(|error| {
            let damaged = matches!(error, Error::Layer { .. } | Error::Contradiction { .. });
            let hint = if damaged { "; restore the layer from where it came" } else { "" };
            crate::extract::explain(&error, &path, part, hint)
        })
    })
}
