//! `fim`: role dispatch.

fn main() {}
