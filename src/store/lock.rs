//! The advisory lock of a file that one process at a time may use.
//!
//! A lock belongs to the open file, and a process that is being started holds copies of its parent's open files for a
//! moment; so does one that was killed until the kernel has taken it down. A lock that is held is therefore asked for
//! again, for [`PATIENCE`] in all, before it counts as somebody else's.

use std::{
    fs::{File, TryLockError},
    thread,
    time::Duration,
};

/// How long a lock that somebody holds is asked for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Locks the file for this process alone, until it is closed.
///
/// # Errors
/// [`TryLockError::WouldBlock`] if another process still holds it after a second.
pub fn lock(file: &File) -> Result<(), TryLockError> {
    let mut left = PATIENCE;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if !left.is_zero() => {
                thread::sleep(PAUSE);
                left = left.saturating_sub(PAUSE);
            }
            outcome => return outcome,
        }
    }
}
