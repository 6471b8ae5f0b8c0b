//! The Notify payload (RFC 7296 section 3.10) and the data of the types that have any.

use std::borrow::Cow;

use super::code_point::{HashAlgorithm, KeMethod, NotifyType, PayloadType, PrfId, ProtocolId};
use super::error::{DecodeError, EncodeError};
use super::reader::Reader;
use super::spi::Spi;
use super::writer::Writer;

/// N.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify<'a> {
    /// The protocol of the SA that the SPI names; `NONE` without an SPI.
    pub protocol: ProtocolId,
    /// The SA it is about, only in INVALID_SELECTORS, REKEY_SA and CHILD_SA_NOT_FOUND.
    pub spi: Spi,
    /// Notify Message Type.
    pub notify_type: NotifyType,
    /// Notification Data.
    pub data: Cow<'a, [u8]>,
}

/// The puzzle of a PUZZLE notification (RFC 8019 section 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PuzzleDemand {
    /// The pseudorandom function to solve it with.
    pub prf: PrfId,
    /// Zero bits that each result has at its end at least; 0 leaves it to the initiator.
    pub difficulty: u8,
}

impl<'a> Notify<'a> {
    /// A notification without SPI and data.
    pub const fn new(notify_type: NotifyType) -> Self {
        Self::with_data(notify_type, Cow::Borrowed(&[]))
    }

    /// A notification with data.
    pub const fn with_data(notify_type: NotifyType, data: Cow<'a, [u8]>) -> Self {
        Self { protocol: ProtocolId::NONE, spi: Spi::None, notify_type, data }
    }

    /// A notification about an ESP SA: REKEY_SA (the SPI that the sender would expect inbound), CHILD_SA_NOT_FOUND,
    /// INVALID_SELECTORS.
    pub const fn about_child(notify_type: NotifyType, spi: u32) -> Self {
        Self { protocol: ProtocolId::ESP, spi: Spi::Child(spi), notify_type, data: Cow::Borrowed(&[]) }
    }

    /// CHILDLESS_IKEV2_SUPPORTED: about the IKE SA, without an SPI (RFC 6023 section 4).
    pub fn childless_ikev2_supported() -> Self {
        Self { protocol: ProtocolId::IKE, ..Self::new(NotifyType::CHILDLESS_IKEV2_SUPPORTED) }
    }

    /// INVALID_KE_PAYLOAD, naming the method wanted (RFC 7296 section 1.3).
    pub fn invalid_ke_payload(method: KeMethod) -> Self {
        Self::with_data(NotifyType::INVALID_KE_PAYLOAD, method.0.to_be_bytes().to_vec().into())
    }

    /// UNSUPPORTED_CRITICAL_PAYLOAD, naming the type not understood (RFC 7296 section 2.5).
    pub fn unsupported_critical_payload(payload_type: PayloadType) -> Self {
        Self::with_data(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![payload_type.0].into())
    }

    /// INVALID_MAJOR_VERSION, naming the version supported (RFC 7296 section 2.5).
    pub fn invalid_major_version() -> Self {
        Self::with_data(NotifyType::INVALID_MAJOR_VERSION, Cow::Borrowed(&[2]))
    }

    /// INVALID_MESSAGE_ID, naming the Message ID (RFC 7296 section 2.3).
    pub fn invalid_message_id(message_id: u32) -> Self {
        Self::with_data(NotifyType::INVALID_MESSAGE_ID, message_id.to_be_bytes().to_vec().into())
    }

    /// SET_WINDOW_SIZE (RFC 7296 section 2.3).
    pub fn set_window_size(size: u32) -> Self {
        Self::with_data(NotifyType::SET_WINDOW_SIZE, size.to_be_bytes().to_vec().into())
    }

    /// SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 4).
    pub fn signature_hash_algorithms(algorithms: &[HashAlgorithm]) -> Self {
        let data: Vec<u8> = algorithms.iter().flat_map(|algorithm| algorithm.0.to_be_bytes()).collect();
        Self::with_data(NotifyType::SIGNATURE_HASH_ALGORITHMS, data.into())
    }

    /// The method in INVALID_KE_PAYLOAD; `None` for other types, or if the data is not two octets.
    pub fn wanted_ke_method(&self) -> Option<KeMethod> {
        self.data_of(NotifyType::INVALID_KE_PAYLOAD).map(u16::from_be_bytes).map(KeMethod)
    }

    /// The payload type in UNSUPPORTED_CRITICAL_PAYLOAD; `None` for other types, or if the data is not one octet.
    pub fn unsupported_payload(&self) -> Option<PayloadType> {
        self.data_of(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD).map(|[payload_type]| PayloadType(payload_type))
    }

    /// The size in SET_WINDOW_SIZE; `None` for other types, or if the data is not four octets.
    pub fn window_size(&self) -> Option<u32> {
        self.data_of(NotifyType::SET_WINDOW_SIZE).map(u32::from_be_bytes)
    }

    /// The Message ID in INVALID_MESSAGE_ID; `None` for other types, or if the data is not four octets.
    pub fn message_id(&self) -> Option<u32> {
        self.data_of(NotifyType::INVALID_MESSAGE_ID).map(u32::from_be_bytes)
    }

    /// The SHA-1 hash in NAT_DETECTION_SOURCE_IP or NAT_DETECTION_DESTINATION_IP (RFC 7296 section 2.23).
    pub fn nat_detection_hash(&self) -> Option<[u8; 20]> {
        self.data_of(NotifyType::NAT_DETECTION_SOURCE_IP)
            .or_else(|| self.data_of(NotifyType::NAT_DETECTION_DESTINATION_IP))
    }

    /// The cookie, 1 to 64 octets (RFC 7296 section 2.6); `None` for other types and lengths.
    pub fn cookie(&self) -> Option<&[u8]> {
        let fits = self.notify_type == NotifyType::COOKIE && (1..=64).contains(&self.data.len());
        fits.then_some(&*self.data)
    }

    /// PUZZLE (RFC 8019 section 8.1).
    pub fn puzzle(demand: PuzzleDemand) -> Self {
        let [high, low] = demand.prf.0.to_be_bytes();
        Self::with_data(NotifyType::PUZZLE, vec![high, low, demand.difficulty].into())
    }

    /// What PUZZLE asks for; `None` for other types, or if the data is not three octets.
    pub fn puzzle_demand(&self) -> Option<PuzzleDemand> {
        let [high, low, difficulty] = self.data_of(NotifyType::PUZZLE)?;
        Some(PuzzleDemand { prf: PrfId(u16::from_be_bytes([high, low])), difficulty })
    }

    /// Algorithms in SIGNATURE_HASH_ALGORITHMS; `None` for other types, or if the data is not of two octets each.
    pub fn hash_algorithms(&self) -> Option<Vec<HashAlgorithm>> {
        let (pairs, rest) = self.data.as_chunks::<2>();
        let fits = self.notify_type == NotifyType::SIGNATURE_HASH_ALGORITHMS && rest.is_empty();
        fits.then(|| pairs.iter().map(|pair| HashAlgorithm(u16::from_be_bytes(*pair))).collect())
    }

    fn data_of<const N: usize>(&self, notify_type: NotifyType) -> Option<[u8; N]> {
        if self.notify_type != notify_type {
            return None;
        }
        self.data.as_ref().try_into().ok()
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let protocol = ProtocolId(reader.u8("Protocol ID")?);
        let spi_size = reader.u8("SPI Size")?;
        let notify_type = NotifyType(reader.u16("Notify Message Type")?);
        let spi = Spi::decode(reader, spi_size)?;
        Ok(Self { protocol, spi, notify_type, data: reader.rest().into() })
    }

    pub(super) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u8(self.protocol.0);
        writer.u8(self.spi.size()?);
        writer.u16(self.notify_type.0);
        self.spi.encode(writer);
        writer.bytes(&self.data);
        Ok(())
    }
}
