//! The Key Exchange payload (RFC 7296 section 3.4, draft-ietf-ipsecme-ikev2-mlkem section 2.1).

use std::borrow::Cow;

use super::code_point::KeMethod;
use super::error::{DecodeError, Malformed};
use super::reader::Reader;
use super::writer::Writer;

/// A public value, encapsulation key or ciphertext.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyExchange<'a> {
    /// The method that the data belongs to.
    pub method: KeMethod,
    /// Key Exchange Data.
    pub data: Cow<'a, [u8]>,
}

impl<'a> KeyExchange<'a> {
    /// For a known method the data has the length that one of the two sides sends; which side it came from, only the
    /// endpoint knows.
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let method = KeMethod(reader.u16("Key Exchange Method")?);
        reader.u16("RESERVED")?;
        let len = reader.left();
        let fits =
            method.lengths().is_none_or(|lengths| len == lengths.initiator || len == lengths.responder);
        if len == 0 || !fits {
            return Err(reader.error(Malformed::KeyExchangeLength { method, len }));
        }
        Ok(Self { method, data: reader.rest().into() })
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.u16(self.method.0);
        writer.u16(0);
        writer.bytes(&self.data);
    }
}
