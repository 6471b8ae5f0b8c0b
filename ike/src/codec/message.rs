//! A whole IKE message (RFC 7296 section 3.1).

use super::code_point::PayloadType;
use super::encrypted::Encrypted;
use super::error::{DecodeError, EncodeError};
use super::header::{Header, LENGTH_AT, NEXT_PAYLOAD_AT};
use super::limits::MAX_MESSAGE_LEN;
use super::payload::{Payload, read_chain, write_chain};
use super::reader::Reader;
use super::writer::{Writer, put};

/// What an IKE_SA_INIT with a classical key exchange needs, octets.
const USUAL_LEN: usize = 512;

/// A message as it was received, without the non-ESP marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// The IKE header.
    pub header: Header,
    /// Payloads in clear, before the Encrypted payload if there is one.
    pub payloads: Vec<Payload<'a>>,
    /// The Encrypted payload, which is the last.
    pub encrypted: Option<Encrypted<'a>>,
}

impl<'a> Message<'a> {
    /// Reads a message, which has to be whole and nothing else.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        let (header, first) = Header::read(&mut reader)?;
        let (payloads, end) = read_chain(&mut reader, first, NEXT_PAYLOAD_AT)?;
        let encrypted = end.map(|end| Encrypted::decode(message, end)).transpose()?;
        Ok(Self { header, payloads, encrypted })
    }
}

/// Puts a message without Encrypted payload into bytes.
pub fn encode_message(header: &Header, payloads: &[Payload<'_>]) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer::with_capacity(USUAL_LEN);
    let first = payloads.first().map_or(PayloadType::NONE, Payload::payload_type);
    header.write(&mut writer, first);
    write_chain(&mut writer, payloads, PayloadType::NONE)?;
    let mut bytes = writer.into_bytes();
    let len = message_len(bytes.len())?;
    put(&mut bytes, LENGTH_AT, &len.to_be_bytes());
    Ok(bytes)
}

/// The Length field of a message.
pub(super) fn message_len(len: usize) -> Result<u32, EncodeError> {
    let too_long = EncodeError::TooLong { what: "message", len, max: MAX_MESSAGE_LEN };
    u32::try_from(len).ok().filter(|_| len <= MAX_MESSAGE_LEN).ok_or(too_long)
}
