//! A box whose bytes are zeroed when it is dropped.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Owns a value that holds expanded keys. The AEAD provider's key type does not wipe itself, so the whole
/// allocation is wiped here after the value's own `Drop`.
pub(super) struct WipeBox<T>(Box<MaybeUninit<T>>);

impl<T> WipeBox<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Box::new(MaybeUninit::new(value)))
    }
}

impl<T> Deref for WipeBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` initialised the value and only `drop` takes it away.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> DerefMut for WipeBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { self.0.assume_init_mut() }
    }
}

impl<T> Drop for WipeBox<T> {
    fn drop(&mut self) {
        // SAFETY: the value is initialised, and nothing uses it after this.
        unsafe { drop_and_wipe(&mut self.0) };
    }
}

/// Drops the value and zeroes its bytes, padding included.
///
/// # Safety
/// The value must be initialised; afterwards it is not.
unsafe fn drop_and_wipe<T>(value: &mut MaybeUninit<T>) {
    // SAFETY: the caller's promise.
    unsafe { value.assume_init_drop() };
    // SAFETY: the same memory as bytes that need not be initialised, borrowed for as long.
    let bytes = unsafe {
        std::slice::from_raw_parts_mut(std::ptr::from_mut(value).cast::<MaybeUninit<u8>>(), size_of::<T>())
    };
    bytes.zeroize();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_value_is_dropped_once() {
        let shared = Arc::new(());
        drop(WipeBox::new((Arc::clone(&shared), [7u8; 32])));
        assert_eq!(Arc::strong_count(&shared), 1);
    }

    #[test]
    fn no_byte_of_the_value_stays() {
        let mut value = MaybeUninit::new([0xabu64; 70]);
        // SAFETY: initialised in the line above.
        unsafe { drop_and_wipe(&mut value) };
        // SAFETY: `drop_and_wipe` zeroed every byte, and zeros are a value of the array.
        assert_eq!(unsafe { value.assume_init() }, [0; 70]);
    }
}
