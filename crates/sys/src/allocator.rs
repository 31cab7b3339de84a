//! The C library's allocator.
#![allow(unsafe_code, reason = "a call that no crate wraps")]

/// Has large blocks of memory given back to the kernel as soon as they are freed, and keeps all threads to a few pools.
///
/// By itself the GNU allocator gives each new thread a pool of its own, up to eight for a processor, and once a large
/// block was freed keeps blocks up to that size in the pools: many threads with buffers of some megabytes, one after
/// the other, leave hundreds of megabytes to nobody. See mallopt(3).
pub fn give_back() {
    /// Bytes from which a block is mapped by itself.
    const LARGE: libc::c_int = 128 << 10;
    const POOLS: libc::c_int = 4;
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_ARENA_MAX, POOLS)] {
        // SAFETY: it sets a number of the allocator's, under its own lock; no memory of ours is touched.
        unsafe { libc::mallopt(parameter, value) };
    }
}
