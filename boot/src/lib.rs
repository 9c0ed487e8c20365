//! Command line, launch plan and client side of fim.

#![forbid(unsafe_code)]
