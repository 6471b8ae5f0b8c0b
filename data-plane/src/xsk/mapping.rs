//! Memory mapped from the kernel, unmapped when dropped.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// A readable and writable mapping, page aligned, private to this process or shared with the kernel.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Zeroed memory of `len` bytes, populated at once so that no packet pays for a page fault.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        Self::map(len, flags, -1, 0)
    }

    /// As [`Mapping::anonymous`], with ranges of it, whole pages, on these NUMA nodes, or on another where one has no memory
    /// left.
    pub fn on_nodes(len: usize, nodes: impl Iterator<Item = (Range<usize>, u32)>) -> io::Result<Self> {
        let mut nodes = nodes.peekable();
        if nodes.peek().is_none() {
            return Self::anonymous(len);
        }
        let mapping = Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        for (range, node) in nodes {
            mapping.prefer(range, node);
        }
        // SAFETY: the mapping is ours from end to end; the call writes nothing that could be seen.
        let populated =
            unsafe { libc::madvise(mapping.base.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) };
        // Linux before 5.14 has no such call: the kernel populates what it gets for a UMEM, by the same rules.
        match populated {
            0 => Ok(mapping),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINVAL) => Ok(mapping),
                error => Err(error),
            },
        }
    }

    /// Asks for a range to be taken from a node. A kernel without NUMA has one, which is as near as any.
    fn prefer(&self, range: Range<usize>, node: u32) {
        const MPOL_PREFERRED: libc::c_long = 1;
        let Some(mask) = 1u64.checked_shl(node) else { return };
        let Some(start) = self.base.as_ptr().addr().checked_add(range.start) else { return };
        // One more than the highest bit that counts.
        let bits: libc::c_ulong = 65;
        // SAFETY: the kernel reads one word at the mask, and changes where pages of the range come from, not what is in them.
        unsafe {
            libc::syscall(libc::SYS_mbind, start, range.len(), MPOL_PREFERRED, &raw const mask, bits, 0);
        }
    }

    /// `len` bytes of the object behind `fd`, shared with the kernel.
    pub fn shared(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: libc::c_int, fd: libc::c_int, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: a null hint never replaces an existing mapping, and the kernel validates the rest.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(base.cast())
            .map(|base| Self { base, len })
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// First byte of the mapping.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub fn size(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are what mmap returned, and every pointer into the mapping is derived
        // from a borrow of, or an `Arc` to, this value.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

// SAFETY: a mapping is memory, not tied to the thread that made it; the types above it decide who may access
// which part of it.
unsafe impl Send for Mapping {}
// SAFETY: as for Send; `Mapping` itself never reads or writes the memory.
unsafe impl Sync for Mapping {}
