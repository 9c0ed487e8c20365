//! Command line, launch plan and client side of fim.

#![forbid(unsafe_code)]

pub mod inspect;
pub mod verify;
