//! Appends to a buffer and fills lengths in afterwards, refusing those that do not fit.

use super::error::EncodeError;

#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

/// A 16-bit length to be filled in, and where what it counts began.
#[must_use]
pub(super) struct Counted {
    field: usize,
    from: usize,
}

impl Writer {
    /// With room for so many octets.
    pub(super) fn with_capacity(octets: usize) -> Self {
        Self(Vec::with_capacity(octets))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Reserves a 16-bit length that counts from `before` octets back.
    pub(super) fn counted(&mut self, before: usize) -> Counted {
        let field = self.0.len();
        self.u16(0);
        Counted { field, from: field.saturating_sub(before) }
    }

    /// Fills the length in: all octets since it began to count.
    pub(super) fn close(&mut self, counted: Counted, what: &'static str) -> Result<(), EncodeError> {
        let len = self.0.len().saturating_sub(counted.from);
        let value = fit_u16(len, what)?;
        put(&mut self.0, counted.field, &value.to_be_bytes());
        Ok(())
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Overwrites octets that are there; the caller has made sure that they are.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let field = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len()));
    debug_assert!(field.is_some(), "field at {at} outside of {value:?}");
    if let Some(field) = field {
        field.copy_from_slice(value);
    }
}

pub(super) fn fit_u16(len: usize, what: &'static str) -> Result<u16, EncodeError> {
    u16::try_from(len).map_err(|_| EncodeError::TooLong { what, len, max: u16::MAX.into() })
}

pub(super) fn fit_u8(len: usize, what: &'static str) -> Result<u8, EncodeError> {
    u8::try_from(len).map_err(|_| EncodeError::TooLong { what, len, max: u8::MAX.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_does_not_fit_is_an_error_and_not_a_wrap() {
        let mut writer = Writer::default();
        writer.u16(0);
        let length = writer.counted(2);
        writer.bytes(&vec![0; 65_534]);
        let error = writer.close(length, "payload");
        assert_eq!(error, Err(EncodeError::TooLong { what: "payload", len: 65_538, max: 65_535 }));
    }
}
