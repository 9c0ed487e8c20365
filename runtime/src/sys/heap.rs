//! The C library's heap.

/// Has all threads that begin later share one heap, where glibc would give each its own. What one thread allocates and
/// another frees stays with the heap of the first: with several, each keeps what it needed at its own worst moment.
pub fn share_one() {
    // SAFETY: mallopt(3) takes two numbers, and any of the second is sound. That it may be refused does no harm.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
