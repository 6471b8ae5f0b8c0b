//! The Authentication payload (RFC 7296 section 3.8).

use std::borrow::Cow;

use super::code_point::AuthMethod;
use super::error::DecodeError;
use super::reader::Reader;
use super::writer::Writer;

/// AUTH.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authentication<'a> {
    /// Auth Method.
    pub method: AuthMethod,
    /// Authentication Data.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Authentication<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let method = AuthMethod(reader.u8("Auth Method")?);
        reader.take(3, "RESERVED")?;
        Ok(Self { method, data: reader.rest().into() })
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.u8(self.method.0);
        writer.bytes(&[0; 3]);
        writer.bytes(&self.data);
    }
}
