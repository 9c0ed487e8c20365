//! Bounded cache of decompressed blocks.
//!
//! The kernel's page cache keeps what was read; this cache only carries a block from the moment it is
//! decompressed to the moment its last page has been asked for. So a block whose every byte was delivered is
//! dropped at once, and what remains is bounded and leaves by second chance.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A decompressed block, shared with the requests that are answered from it.
pub(super) type Bytes = Arc<Vec<u8>>;

/// A block by the layer it is in and the byte offset of its stored form there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) layer: u32,
    pub(super) offset: u64,
}

/// The block could not be loaded; the loader has said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// More shards than this do not help: a lock is held for a hash lookup, a load takes a thousand times longer.
const MAX_SHARDS: usize = 16;
/// A shard must hold several of the largest blocks (1 MiB), or neighbours would push each other out.
const MIN_SHARD_BYTES: usize = 8 << 20;

/// Blocks by key, with a budget in bytes.
pub(super) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    shard_budget: usize,
    held: AtomicUsize,
    peak: AtomicUsize,
    loads: AtomicU64,
}

#[derive(Default)]
struct Shard {
    slots: HashMap<Key, Slot>,
    /// Insertion order with the stamp of the insertion; entries whose slot is gone or newer are stale.
    order: VecDeque<(u64, Key)>,
    stamp: u64,
    bytes: usize,
}

enum Slot {
    /// A read-ahead worker will load it; whoever needs it first takes it over.
    Promised,
    Loading(Arc<Flight>),
    Ready(Ready),
}

struct Ready {
    bytes: Bytes,
    stamp: u64,
    /// Used since the last pass of the eviction.
    used: bool,
    /// Bytes that were not yet asked for.
    pending: usize,
}

/// A load in progress and those who wait for it.
#[derive(Default)]
struct Flight {
    outcome: Mutex<Option<Result<Bytes, Unreadable>>>,
    landed: Condvar,
}

/// Removes the slot of a load that ends without an outcome (the loader panicked), so that nobody waits for ever.
struct Landing<'a> {
    cache: &'a Cache,
    key: Key,
    flight: Arc<Flight>,
    landed: bool,
}

impl Cache {
    /// An empty cache of at most `budget` bytes; it allocates nothing yet.
    pub(super) fn new(budget: usize) -> Self {
        let shards = (budget / MIN_SHARD_BYTES).clamp(1, MAX_SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_budget: budget / shards,
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            loads: AtomicU64::new(0),
        }
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Most bytes ever held.
    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// How often a loader was called.
    pub(super) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    /// The block of `key`, of which the caller will deliver `wanted` bytes.
    ///
    /// Concurrent calls for one key call one `load`; the others wait and share its outcome. An error is given to
    /// those who waited and then forgotten, so that the next call tries again.
    pub(super) fn get(
        &self,
        key: Key,
        wanted: usize,
        load: impl FnOnce() -> Result<Vec<u8>, Unreadable>,
    ) -> Result<Bytes, Unreadable> {
        let mut shard = self.shard(key);
        let flight = match shard.slots.get(&key) {
            Some(Slot::Ready(ready)) => {
                let bytes = Arc::clone(&ready.bytes);
                self.deliver(&mut shard, key, wanted);
                return Ok(bytes);
            }
            Some(Slot::Loading(flight)) => Arc::clone(flight),
            Some(Slot::Promised) | None => {
                let landing = self.take_off(shard, key);
                return self.load(landing, wanted, load);
            }
        };
        drop(shard);
        let bytes = flight.wait()?;
        self.deliver(&mut self.shard(key), key, wanted);
        Ok(bytes)
    }

    /// Notes that a worker will load `key`. False when it is held, being loaded or promised already.
    pub(super) fn promise(&self, key: Key) -> bool {
        let mut shard = self.shard(key);
        let vacant = !shard.slots.contains_key(&key);
        if vacant {
            shard.slots.insert(key, Slot::Promised);
        }
        vacant
    }

    /// Keeps a promise, unless a request has already taken it over.
    pub(super) fn keep_promise(&self, key: Key, load: impl FnOnce() -> Result<Vec<u8>, Unreadable>) {
        let shard = self.shard(key);
        if matches!(shard.slots.get(&key), Some(Slot::Promised)) {
            let landing = self.take_off(shard, key);
            // A block that nobody has asked for may fail quietly: whoever asks gets the error from its own load.
            let _ = self.load(landing, 0, load);
        }
    }

    /// Takes a promise back.
    pub(super) fn break_promise(&self, key: Key) {
        let mut shard = self.shard(key);
        if matches!(shard.slots.get(&key), Some(Slot::Promised)) {
            shard.slots.remove(&key);
        }
    }

    fn take_off(&self, mut shard: MutexGuard<'_, Shard>, key: Key) -> Landing<'_> {
        let flight = Arc::new(Flight::default());
        shard.slots.insert(key, Slot::Loading(Arc::clone(&flight)));
        Landing { cache: self, key, flight, landed: false }
    }

    fn load(
        &self,
        mut landing: Landing<'_>,
        wanted: usize,
        load: impl FnOnce() -> Result<Vec<u8>, Unreadable>,
    ) -> Result<Bytes, Unreadable> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let outcome = load().map(Arc::new);
        landing.land(outcome.clone(), wanted);
        outcome
    }

    /// Counts `wanted` bytes of a held block as delivered and drops it with the last of them.
    fn deliver(&self, shard: &mut Shard, key: Key, wanted: usize) {
        let Some(Slot::Ready(ready)) = shard.slots.get_mut(&key) else { return };
        ready.used = true;
        ready.pending = ready.pending.saturating_sub(wanted);
        if ready.pending == 0 {
            self.remove(shard, key);
        }
    }

    fn insert(&self, shard: &mut Shard, key: Key, bytes: Bytes, wanted: usize) {
        let len = bytes.len();
        let pending = len.saturating_sub(wanted);
        if pending == 0 || len > self.shard_budget {
            shard.slots.remove(&key);
            return;
        }
        self.make_room(shard, len);
        shard.stamp += 1;
        let stamp = shard.stamp;
        shard.slots.insert(key, Slot::Ready(Ready { bytes, stamp, used: true, pending }));
        shard.order.push_back((stamp, key));
        shard.bytes += len;
        let held = self.held.fetch_add(len, Ordering::Relaxed) + len;
        self.peak.fetch_max(held, Ordering::Relaxed);
        if shard.order.len() > 2 * shard.slots.len() + 64 {
            let slots = &shard.slots;
            shard.order.retain(|(stamp, key)| matches!(slots.get(key), Some(Slot::Ready(r)) if r.stamp == *stamp));
        }
    }

    /// Second chance: the oldest block goes, unless it was used since it was last looked at.
    fn make_room(&self, shard: &mut Shard, len: usize) {
        while shard.bytes + len > self.shard_budget {
            let Some((stamp, key)) = shard.order.pop_front() else { return };
            match shard.slots.get_mut(&key) {
                Some(Slot::Ready(ready)) if ready.stamp == stamp => {
                    if std::mem::take(&mut ready.used) {
                        shard.order.push_back((stamp, key));
                    } else {
                        self.remove(shard, key);
                    }
                }
                _ => {}
            }
        }
    }

    fn remove(&self, shard: &mut Shard, key: Key) {
        if let Some(Slot::Ready(ready)) = shard.slots.remove(&key) {
            shard.bytes -= ready.bytes.len();
            self.held.fetch_sub(ready.bytes.len(), Ordering::Relaxed);
        }
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        // Fibonacci hashing spreads neighbouring offsets; its high bits are the good ones.
        let hash = (key.offset ^ (u64::from(key.layer) << 48)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let shard = &self.shards[hash as usize % self.shards.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Landing<'_> {
    fn land(&mut self, outcome: Result<Bytes, Unreadable>, wanted: usize) {
        self.landed = true;
        let mut shard = self.cache.shard(self.key);
        match &outcome {
            Ok(bytes) => self.cache.insert(&mut shard, self.key, Arc::clone(bytes), wanted),
            Err(Unreadable) => {
                shard.slots.remove(&self.key);
            }
        }
        drop(shard);
        *self.flight.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.flight.landed.notify_all();
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.land(Err(Unreadable), 0);
        }
    }
}

impl Flight {
    fn wait(&self) -> Result<Bytes, Unreadable> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            outcome = self.landed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn key(offset: u64) -> Key {
        Key { layer: 0, offset }
    }

    #[test]
    fn concurrent_requests_load_a_block_once() {
        let cache = Cache::new(64 << 20);
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let bytes = cache.get(key(7), 10, || Ok(vec![7; 4096])).unwrap();
                    assert_eq!(*bytes, vec![7; 4096]);
                });
            }
        });
        assert_eq!(cache.loads(), 1);
        assert_eq!(cache.held(), 4096);
    }

    #[test]
    fn a_fully_delivered_block_is_dropped() {
        let cache = Cache::new(1 << 20);
        for _ in 0..4 {
            cache.get(key(0), 1024, || Ok(vec![0; 4096])).unwrap();
        }
        assert_eq!((cache.loads(), cache.held()), (1, 0));
    }

    #[test]
    fn the_budget_holds_and_used_blocks_stay() {
        let cache = Cache::new(1 << 20);
        for offset in 0..1000 {
            cache.get(key(offset), 1, || Ok(vec![0; 64 << 10])).unwrap();
            cache.get(key(0), 1, || Ok(vec![0; 64 << 10])).unwrap();
            assert!(cache.held() <= 1 << 20);
        }
        assert!(cache.peak() <= 1 << 20);
        assert!(cache.loads() < 1100, "the block in constant use was thrown out: {} loads", cache.loads());
    }

    #[test]
    fn a_block_above_the_budget_is_served_and_not_kept() {
        let cache = Cache::new(1 << 10);
        assert_eq!(cache.get(key(0), 1, || Ok(vec![1; 4096])).unwrap().len(), 4096);
        assert_eq!(cache.held(), 0);
    }

    #[test]
    fn an_error_is_not_kept() {
        let cache = Cache::new(1 << 20);
        assert_eq!(cache.get(key(0), 1, || Err(Unreadable)), Err(Unreadable));
        assert!(cache.get(key(0), 1, || Ok(vec![1; 10])).is_ok());
    }

    #[test]
    fn a_panicking_loader_leaves_no_one_waiting() {
        let cache = Cache::new(1 << 20);
        let fall = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = cache.get(key(0), 1, || panic!("loader"));
        }));
        assert!(fall.is_err());
        assert!(cache.get(key(0), 1, || Ok(vec![1; 10])).is_ok());
    }

    #[test]
    fn a_promise_is_kept_once_and_yields_to_a_request() {
        let cache = Cache::new(1 << 20);
        assert!(cache.promise(key(0)));
        assert!(!cache.promise(key(0)));
        cache.get(key(0), 10, || Ok(vec![1; 10])).unwrap();
        cache.keep_promise(key(0), || panic!("taken over already"));
        assert!(cache.promise(key(1)));
        cache.keep_promise(key(1), || Ok(vec![1; 10]));
        cache.get(key(1), 10, || panic!("loaded ahead already")).unwrap();
        assert_eq!(cache.held(), 0);
    }

    #[test]
    fn stale_order_entries_do_not_pile_up() {
        let cache = Cache::new(1 << 20);
        for offset in 0..10_000 {
            cache.get(key(offset), 1, || Ok(vec![0; 2])).unwrap();
            cache.get(key(offset), 1, || Ok(vec![0; 2])).unwrap();
        }
        assert!(cache.shard(key(0)).order.len() < 200);
    }
}
