//! A small bounded cache for many threads.

use std::sync::{Mutex, PoisonError};

const SHARDS: usize = 16;

/// Values by position. Sixteen shards of `ways` entries, each evicting what was used longest ago. A lock is held
/// for the look-up alone, never while a value is made: two threads that miss at the same time make it twice.
pub(super) struct Cache<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    ways: usize,
}

struct Shard<V> {
    entries: Vec<Entry<V>>,
    clock: u64,
}

struct Entry<V> {
    key: u64,
    used: u64,
    value: V,
}

impl<V: Clone> Cache<V> {
    /// A cache of at most `capacity` entries, a multiple of 16.
    pub(super) fn new(capacity: usize) -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(Shard { entries: Vec::new(), clock: 0 }));
        Self { shards, ways: (capacity / SHARDS).max(1) }
    }

    pub(super) fn get(&self, key: u64) -> Option<V> {
        self.with_shard(key, |shard| {
            shard.clock += 1;
            let entry = shard.entries.iter_mut().find(|entry| entry.key == key)?;
            entry.used = shard.clock;
            Some(entry.value.clone())
        })
    }

    /// Stores `value` unless another thread was faster, and returns what is stored.
    pub(super) fn insert(&self, key: u64, value: V) -> V {
        self.with_shard(key, |shard| {
            shard.clock += 1;
            if let Some(entry) = shard.entries.iter().find(|entry| entry.key == key) {
                return entry.value.clone();
            }
            let entry = Entry { key, used: shard.clock, value: value.clone() };
            if shard.entries.len() < self.ways {
                shard.entries.push(entry);
            } else if let Some(oldest) = shard.entries.iter_mut().min_by_key(|entry| entry.used) {
                *oldest = entry;
            }
            value
        })
    }

    fn with_shard<R>(&self, key: u64, body: impl FnOnce(&mut Shard<V>) -> R) -> R {
        // The upper four bits of a multiplicative hash spread positions that differ little.
        let shard = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        let shard = &self.shards[shard as usize];
        body(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(32);
        cache.insert(0, 0);
        for key in 1..10_000 {
            cache.insert(key, key);
            assert_eq!(cache.get(0), Some(0), "used all the time, so never the oldest");
        }
        let stored = (0..10_000).filter(|key| cache.get(*key).is_some()).count();
        assert!(stored <= 32, "{stored}");
        assert_eq!(cache.insert(0, 7), 0, "the first value stays");
    }
}
