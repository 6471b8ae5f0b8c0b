//! The IKE header (RFC 7296 section 3.1).

use super::code_point::{ExchangeType, PayloadType};
use super::error::{DecodeError, Malformed};
use super::limits::MAX_MESSAGE_LEN;
use super::reader::Reader;
use super::writer::Writer;

/// Octets of the IKE header.
pub const HEADER_LEN: usize = 28;
/// Four zero octets before IKE messages on port 4500 (RFC 3948 section 2.2, RFC 9329 section 3.1).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// Where the Next Payload field of the header is.
pub(super) const NEXT_PAYLOAD_AT: usize = 16;
/// Where the Length field of the header is.
pub(super) const LENGTH_AT: usize = 24;

const MAJOR_VERSION: u8 = 2;

/// The IKE message behind the non-ESP marker, or `None` if the datagram is ESP.
pub fn without_non_esp_marker(datagram: &[u8]) -> Option<&[u8]> {
    datagram.strip_prefix(&NON_ESP_MARKER)
}

/// The flags this version defines; the others are sent as zero and ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags {
    /// I: the sender is the original initiator of the IKE SA, or of its last rekey.
    pub initiator: bool,
    /// R: this is a response.
    pub response: bool,
}

impl Flags {
    const INITIATOR: u8 = 0x08;
    const RESPONSE: u8 = 0x20;

    const fn from_octet(octet: u8) -> Self {
        Self { initiator: octet & Self::INITIATOR != 0, response: octet & Self::RESPONSE != 0 }
    }

    const fn to_octet(self) -> u8 {
        let initiator = if self.initiator { Self::INITIATOR } else { 0 };
        let response = if self.response { Self::RESPONSE } else { 0 };
        initiator | response
    }
}

/// What the IKE header says beside the type of the first payload and the length, which belong to the encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// SPI of the initiator, never zero.
    pub spi_i: u64,
    /// SPI of the responder; zero in the first message of an initial exchange.
    pub spi_r: u64,
    /// Exchange Type.
    pub exchange: ExchangeType,
    /// I and R.
    pub flags: Flags,
    /// Message ID.
    pub message_id: u32,
}

impl Header {
    /// Reads the header and checks its length against the message, which has to be whole and nothing else.
    /// Also returns the type of the first payload.
    pub fn decode(message: &[u8]) -> Result<(Self, PayloadType), DecodeError> {
        let mut reader = Reader::new(message);
        Self::read(&mut reader)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Self, PayloadType), DecodeError> {
        let actual = reader.left();
        if actual > MAX_MESSAGE_LEN {
            return Err(reader.error(Malformed::MessageTooLong(actual)));
        }
        let spi_i = reader.u64("initiator's SPI")?;
        let spi_r = reader.u64("responder's SPI")?;
        let first = PayloadType(reader.u8("Next Payload")?);
        let at_version = reader.clone();
        let version = reader.u8("version")?;
        let exchange = ExchangeType(reader.u8("Exchange Type")?);
        let flags = Flags::from_octet(reader.u8("Flags")?);
        let message_id = reader.u32("Message ID")?;
        let at_length = reader.clone();
        let declared = reader.u32("Length")?;
        if version >> 4 != MAJOR_VERSION {
            return Err(at_version.error(Malformed::MajorVersion(version >> 4)));
        }
        if usize::try_from(declared) != Ok(actual) {
            return Err(at_length.error(Malformed::MessageLength { declared, actual }));
        }
        if spi_i == 0 {
            return Err(DecodeError::new(Malformed::ZeroInitiatorSpi, 0));
        }
        Ok((Self { spi_i, spi_r, exchange, flags, message_id }, first))
    }

    /// Appends the header with a length of zero, which the message fills in.
    pub(super) fn write(&self, writer: &mut Writer, first: PayloadType) {
        writer.u64(self.spi_i);
        writer.u64(self.spi_r);
        writer.u8(first.0);
        writer.u8(MAJOR_VERSION << 4);
        writer.u8(self.exchange.0);
        writer.u8(self.flags.to_octet());
        writer.u32(self.message_id);
        writer.u32(0);
    }
}
