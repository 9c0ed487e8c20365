//! PID 1 of an instance.

#![forbid(unsafe_code)]
