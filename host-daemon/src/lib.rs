//! Registry and router of a session.

#![forbid(unsafe_code)]
