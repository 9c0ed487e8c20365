//! Tells readers that go through files in the order of the layer.
//!
//! Tools that pack a layer number inodes, and write their contents, in the order in which they walk the tree; who
//! reads a whole directory mostly walks it the same way. So after some files in the order of their numbers, the
//! next numbers are worth reading ahead.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Readers told apart.
const READERS: usize = 8;
/// Numbers that a reader may pass over: links, empty files, names it did not want.
const GAP: u32 = 8;
/// Files in order before anything is read ahead.
const TRUST: u32 = 3;
/// Most files ahead of a reader.
const MOST: u32 = 32;

/// The files that readers began with last.
#[derive(Default)]
pub(super) struct Order {
    readers: Mutex<Readers>,
}

#[derive(Default)]
struct Readers {
    known: [Walk; READERS],
    clock: u64,
}

#[derive(Default, Clone, Copy)]
struct Walk {
    layer: usize,
    /// Number of the file begun last.
    last: u32,
    /// Files begun in order.
    run: u32,
    /// First number not yet handed to read-ahead.
    ahead: u32,
    used: u64,
}

impl Order {
    /// Notes that somebody begins to read file `number` and returns the numbers to read ahead, often none.
    pub(super) fn note(&self, layer: usize, number: u32) -> Range<u32> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.clock += 1;
        let clock = readers.clock;
        // Who reads a file twice goes on from there: what is appended to is read, and then copied up.
        let begins_again = |walk: &&mut Walk| walk.layer == layer && walk.last == number;
        if let Some(walk) = readers.known.iter_mut().find(begins_again) {
            walk.used = clock;
            return 0..0;
        }
        let follows = |walk: &&mut Walk| walk.layer == layer && (1..=GAP).contains(&number.wrapping_sub(walk.last));
        if let Some(walk) = readers.known.iter_mut().find(follows) {
            return walk.step(number, clock);
        }
        if let Some(oldest) = readers.known.iter_mut().min_by_key(|walk| walk.used) {
            *oldest = Walk { layer, last: number, run: 0, ahead: 0, used: clock };
        }
        0..0
    }
}

impl Walk {
    fn step(&mut self, number: u32, clock: u64) -> Range<u32> {
        self.last = number;
        self.run = self.run.saturating_add(1);
        self.used = clock;
        if self.run < TRUST {
            return 0..0;
        }
        let first = self.ahead.max(number.saturating_add(1));
        let end = number.saturating_add(1 + self.run.min(MOST)).max(first);
        self.ahead = end;
        first..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_read_twice_does_not_break_the_order() {
        let order = Order::default();
        let all: Vec<Range<u32>> =
            (101..=105).flat_map(|number| [order.note(0, number), order.note(0, number)]).collect();
        assert_eq!(all.iter().filter(|range| !range.is_empty()).count(), 2, "{all:?}");
        assert!(!all[6].is_empty() && all[7].is_empty());
    }

    #[test]
    fn files_in_order_are_asked_for_once_each_and_not_too_early() {
        let order = Order::default();
        let mut next = None;
        for number in (100..400).step_by(2) {
            let ahead = order.note(0, number);
            if !ahead.is_empty() {
                assert!(ahead.start > number && ahead.end <= number + 1 + MOST);
                assert!(next.is_none_or(|next| next == ahead.start));
                next = Some(ahead.end);
            }
        }
        assert!(next > Some(398));
    }

    #[test]
    fn two_readers_and_two_layers_are_told_apart() {
        let order = Order::default();
        for step in 0..10 {
            for (layer, first) in [(0, 100), (0, 5000), (1, 100)] {
                let ahead = order.note(layer, first + step);
                assert_eq!(ahead.is_empty(), step < TRUST, "{layer} {first} {step}");
            }
        }
    }

    #[test]
    fn files_in_no_order_are_not_read_ahead() {
        let order = Order::default();
        let mut number = 1u32;
        for _ in 0..10_000 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            assert!(order.note(0, number >> 8).is_empty());
        }
    }

    #[test]
    fn the_last_numbers_do_not_overflow() {
        let order = Order::default();
        for number in u32::MAX - 10..=u32::MAX {
            order.note(0, number);
        }
        order.note(0, 0);
    }
}
