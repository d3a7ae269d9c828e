//! Memory of this process.

/// Gives memory that is free inside this process back to the kernel. After a
/// list of all objects that is as much as the agent needs for good: a list is
/// decoded in a thread of its own, whose heap keeps what it once had.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
