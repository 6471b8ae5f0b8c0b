//! Payloads whose content is one string of octets.

use std::borrow::Cow;

use super::code_point::PayloadType;
use super::error::{DecodeError, EncodeError, Malformed};
use super::limits::{MAX_NONCE_LEN, MIN_NONCE_LEN};
use super::reader::Reader;
use super::writer::Writer;

/// The Nonce payload (RFC 7296 section 3.9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nonce<'a>(
    /// 16 to 256 octets.
    pub Cow<'a, [u8]>,
);

impl<'a> Nonce<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if !(MIN_NONCE_LEN..=MAX_NONCE_LEN).contains(&reader.left()) {
            return Err(reader.error(Malformed::NonceLength(reader.left())));
        }
        Ok(Self(reader.rest().into()))
    }

    pub(super) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        if self.0.len() > MAX_NONCE_LEN {
            return Err(EncodeError::TooLong { what: "nonce", len: self.0.len(), max: MAX_NONCE_LEN });
        }
        writer.bytes(&self.0);
        Ok(())
    }
}

/// The Vendor ID payload (RFC 7296 section 3.12).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VendorId<'a>(
    /// The Vendor ID.
    pub Cow<'a, [u8]>,
);

/// The EAP payload (RFC 7296 section 3.16).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Eap<'a>(
    /// A whole EAP message, whose Length is that of this field.
    pub Cow<'a, [u8]>,
);

impl<'a> Eap<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let actual = reader.left();
        let mut header = reader.clone();
        header.take(2, "EAP Code and Identifier")?;
        let declared = header.u16("EAP Length")?;
        if usize::from(declared) != actual {
            return Err(header.error(Malformed::EapLength { declared, actual }));
        }
        Ok(Self(reader.rest().into()))
    }
}

/// The Puzzle Solution payload (RFC 8019 section 8.2): four keys of the same size, one after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PuzzleSolution<'a>(
    /// Puzzle Solution Data, not empty, a multiple of four octets long.
    pub Cow<'a, [u8]>,
);

impl<'a> PuzzleSolution<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len = reader.left();
        if len == 0 || !len.is_multiple_of(PUZZLE_KEYS) {
            return Err(reader.error(Malformed::PuzzleSolutionLength(len)));
        }
        Ok(Self(reader.rest().into()))
    }
}

/// Keys in a Puzzle Solution.
const PUZZLE_KEYS: usize = 4;

/// A payload that this code does not know and that is not critical.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownPayload<'a> {
    /// Its type.
    pub payload_type: PayloadType,
    /// Everything after its generic header.
    pub body: Cow<'a, [u8]>,
}
