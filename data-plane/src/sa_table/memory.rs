//! Arrays of atomics in memory that outlives a borrow: BPF maps or memfds, mapped without touching a page.

use std::ffi::CStr;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use portcullis_esp::{InboundLive, OutboundLive};

/// Where the arrays lie that XDP or tools can see.
pub enum Backing {
    /// Two BPF arrays made with `BPF_F_MMAPABLE`.
    Maps {
        /// One u64 for each slot; read-only to programs.
        steer: OwnedFd,
        /// 64 bytes for each inbound, then each outbound slot; no program touches it.
        keys: OwnedFd,
    },
    /// Anonymous files, where there is no XDP.
    Memory,
}

/// Types made of atomics alone, for which all zeros is a value.
///
/// # Safety
/// Every bit pattern must be a value, all of it must be atomics, and there must be no `Drop`.
pub(super) unsafe trait SharedValue: Sync {}

// SAFETY: an atomic integer.
unsafe impl SharedValue for AtomicU64 {}
// SAFETY: `repr(C)`, atomic integers and padding.
unsafe impl SharedValue for InboundLive {}
// SAFETY: `repr(C)`, atomic integers and padding.
unsafe impl SharedValue for OutboundLive {}

/// An array in a shared mapping.
pub(super) struct SharedArray<T: SharedValue> {
    base: NonNull<T>,
    len: usize,
    values: PhantomData<T>,
}

impl<T: SharedValue> SharedArray<T> {
    /// `len` zeroed values in an anonymous file; pages come into being when they are first written.
    pub(super) fn anonymous(name: &CStr, len: usize) -> io::Result<Self> {
        let file = memfd(name, libc::MFD_CLOEXEC)?;
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        std::fs::File::from(file.try_clone()?).set_len(bytes as u64)?;
        Self::map(&file, len)
    }

    /// The first `len` values of `file`, which must be at least that long.
    pub(super) fn map(file: &impl AsFd, len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a null hint never replaces an existing mapping, and the kernel validates the rest.
        let base = unsafe {
            let fd = file.as_fd().as_raw_fd();
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Keys and sequence numbers have no place in a core file. SAFETY: exactly the mapping made above.
        if unsafe { libc::madvise(base, bytes, libc::MADV_DONTDUMP) } != 0 {
            tracing::debug!(error = %io::Error::last_os_error(), "the SA table may appear in a core file");
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, values: PhantomData })
    }
}

impl<T: SharedValue> Deref for SharedArray<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `map` mapped `len` values at `base`, page aligned, and they stay until `drop`. Any bytes are
        // values of T, and every change to them, from whatever process, meets atomics (`SharedValue`).
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<T: SharedValue> Drop for SharedArray<T> {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of the mapping, and all references borrow from `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

// SAFETY: the mapping belongs to no thread; its values are `Sync` and have no `Drop`.
unsafe impl<T: SharedValue> Send for SharedArray<T> {}
// SAFETY: only shared references to values that are `Sync` are given out.
unsafe impl<T: SharedValue> Sync for SharedArray<T> {}

/// An anonymous file, closed on exec.
pub(super) fn memfd(name: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a C string; the call has no other memory effects.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn two_mappings_of_one_file_show_the_same_values() {
        let file = memfd(c"test", libc::MFD_CLOEXEC).unwrap();
        std::fs::File::from(file.try_clone().unwrap()).set_len(800).unwrap();
        let writer = SharedArray::<AtomicU64>::map(&file, 100).unwrap();
        let reader = SharedArray::<AtomicU64>::map(&file, 100).unwrap();
        writer[99].store(7, Ordering::Relaxed);
        assert_eq!((reader.len(), reader[99].load(Ordering::Relaxed)), (100, 7));
    }

    #[test]
    fn an_array_of_nothing_is_refused() {
        assert!(SharedArray::<AtomicU64>::anonymous(c"test", 0).is_err());
    }
}
