//! Content that images share (`fim-content`): what an image declares, which producers serve its plugs, and what a start
//! makes of that.

mod beside;
mod connect;
mod declare;
mod list;
mod producer;
mod resolve;
mod supply;

use std::ffi::OsString;

pub(crate) use declare::targets;
pub(crate) use producer::Producer;
pub(crate) use resolve::resolve;
pub use supply::Supply;
pub(crate) use supply::{images, serve, shape, steps};

use crate::settings::{invalid_operation, json_flag, no_more, operation};
use crate::{Failure, Invocation};

/// Runs `fim-content` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words; slots, plugs and producers that do not fit; an image that cannot be changed. Nothing is changed then.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let missing =
        "Missing op for 'fim-content' (<slot|plug|unslot|unplug|connect|disconnect|connections|list|inherit>)";
    let (operation, rest) = operation("content", words, missing)?;
    match operation.as_str() {
        "slot" => declare::slot(invocation, rest),
        "plug" => declare::plug(invocation, rest),
        "unslot" => declare::unslot(invocation, rest),
        "unplug" => declare::unplug(invocation, rest),
        "connect" => connect::connect(invocation, rest),
        "disconnect" => connect::disconnect(invocation, rest),
        "connections" => list::connections(invocation, json_flag("content", rest)?),
        "list" => list::declared(invocation, json_flag("content", rest)?),
        "inherit" => {
            no_more("content", rest)?;
            connect::inherit(invocation).map(|()| 0)
        }
        other => Err(invalid_operation("content", other)),
    }
}
