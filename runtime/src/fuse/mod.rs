//! The multi-threaded FUSE server that shows every layer of a session.
