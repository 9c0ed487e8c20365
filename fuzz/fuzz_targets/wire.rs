//! The messages between clients and daemons, and the files of a session: whatever the bytes, nothing may panic, and
//! what decodes must survive being written again.
//!
//! The first byte of an input chooses the parser.

#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::control::{FromGuest, ToGuest};
use runtime::session::record::Record;
use runtime::wire::body::{self, Event, Reply, Request};
use runtime::wire::{Doorbell, Doorbells, frame};

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else { return };
    match mode {
        0 => doorbells(bytes),
        1 => frames(bytes),
        2 => {
            if let Ok(request) = Request::decode(bytes) {
                assert_eq!(body::encode(&request), bytes);
            }
        }
        3 => {
            if let Ok(event) = body::decode::<Event>(bytes) {
                assert_eq!(body::encode(&event), bytes);
            }
        }
        4 => {
            if let Ok(reply) = body::decode::<Reply>(bytes) {
                assert_eq!(body::encode(&reply), bytes);
            }
        }
        5 => {
            if let Some(message) = ToGuest::decode(bytes) {
                assert_eq!(ToGuest::decode(&message.encode()), Some(message));
            }
            if let Some(message) = FromGuest::decode(bytes) {
                assert!(FromGuest::decode(&message.encode()).is_some());
            }
        }
        6 => {
            if let Ok(record) = Record::decode(bytes) {
                assert_eq!(Record::decode(&record.encode()), Ok(record));
            }
        }
        _ => {}
    }
});

/// However the stream is cut, no more comes out than went in.
fn doorbells(bytes: &[u8]) {
    let whole = Doorbells::default().feed(bytes);
    let mut reader = Doorbells::default();
    let mut pieces = Vec::new();
    let cut = bytes.first().map_or(1, |first| usize::from(*first).max(1));
    for piece in bytes.chunks(cut) {
        pieces.extend(reader.feed(piece));
    }
    assert!(whole.len() * Doorbell::LEN <= bytes.len() && pieces.len() * Doorbell::LEN <= bytes.len());
    assert!(reader.garbage <= bytes.len() as u64);
}

/// Every frame there is, written again.
fn frames(bytes: &[u8]) {
    let mut from = bytes;
    let mut again = Vec::new();
    while let Ok(Some(body)) = frame::read(&mut from) {
        again.extend(frame::encode(&body).expect("a frame that was read is no longer than the limit"));
    }
    assert!(bytes.starts_with(&again));
}
