//! Hosts that nobody prepared: the same smoke test on each, or the refusal that says what helps.

#[path = "../harness/mod.rs"]
mod harness;

mod containers;
mod doctor;
mod guest;
mod host;
mod names;
mod refusals;
mod runs;
mod table;
