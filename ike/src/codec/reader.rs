//! A cursor over borrowed bytes that knows how far into the message it is.

use super::error::{DecodeError, Malformed};

#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// Octets from the start of the message.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn error(&self, cause: Malformed) -> DecodeError {
        DecodeError::new(cause, self.offset)
    }

    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.error(Malformed::Truncated { field, needed: len, left: self.rest.len() }));
        };
        self.rest = rest;
        self.offset += len;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.error(Malformed::Truncated { field, needed: N, left: self.rest.len() }));
        };
        self.rest = rest;
        self.offset += N;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(|[octet]| octet)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A reader of exactly the next `len` octets.
    pub(super) fn sub(&mut self, len: usize, field: &'static str) -> Result<Self, DecodeError> {
        let offset = self.offset;
        self.take(len, field).map(|rest| Self { rest, offset })
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.offset += rest.len();
        self.rest = &[];
        rest
    }

    /// Refuses trailing octets.
    pub(super) fn finish(&self, after: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.error(Malformed::TrailingBytes { after, count: self.rest.len() }))
        }
    }
}
