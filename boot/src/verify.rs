//! `fim verify`: every byte of an image against its digests.

use std::io::Write;
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget};
use runtime::image::{BadRange, Report, verify};
use runtime::publisher::{PublicKey, Standing};
use serde_json::{Value, json};

use crate::inspect::{InspectError, open, publisher_json, standing, unless_reader_left, write_json};
use crate::publisher::describe;

/// Verifies the image at `path` and prints each damaged range, as text or as JSON. Progress is shown on
/// stderr when that is a terminal. Returns whether the image is sound, and signed by `publisher` if there is one.
///
/// # Errors
/// When the image cannot be used at all or `out` fails; damage is a result, not an error.
pub fn run(
    path: &Path,
    as_json: bool,
    publisher: Option<PublicKey>,
    out: &mut dyn Write,
) -> Result<bool, InspectError> {
    let image = open(path)?;
    // indicatif draws nothing when stderr is not a terminal.
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let checked = verify(&image, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = checked.map_err(|source| InspectError::Layers { path: path.to_owned(), source })?;
    let standing = standing(&image)?;
    let layers = image.config.layers.len();
    if as_json {
        let damaged: Vec<_> = report.bad.iter().map(range_json).collect();
        let value = json!({
            "bytes": report.bytes,
            "damaged": damaged,
            "layers": layers,
            "publisher": publisher_json(standing),
            "sound": report.is_sound(),
        });
        unless_reader_left(write_json(&value, out))?;
    } else {
        unless_reader_left(write_text(&report, layers, standing, publisher, out))?;
    }
    Ok(report.is_sound() && (publisher.is_none() || standing.publisher() == publisher))
}

fn write_text(
    report: &Report,
    layers: usize,
    standing: Standing,
    wanted: Option<PublicKey>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    for bad in &report.bad {
        let place = bad.layer.map_or_else(String::new, |layer| format!("layer {layer}: "));
        writeln!(out, "{place}bytes {} to {}: {}", bad.offset, bad.offset + bad.len, bad.reason)?;
    }
    if report.is_sound() {
        writeln!(out, "every digest matches: {} bytes, layers: {layers}", report.bytes)?;
    } else {
        writeln!(out, "{} damaged ranges; restore the image from where it came", report.bad.len())?;
    }
    writeln!(out, "publisher: {}", describe(standing))?;
    if let Some(wanted) = wanted.filter(|wanted| standing.publisher() != Some(*wanted)) {
        writeln!(out, "it is not signed by {wanted}; get the image from its publisher")?;
    }
    Ok(())
}

fn range_json(bad: &BadRange) -> Value {
    json!({ "layer": bad.layer, "length": bad.len, "offset": bad.offset, "reason": bad.reason })
}
