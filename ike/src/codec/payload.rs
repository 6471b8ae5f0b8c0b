//! Payloads and the chain that their Next Payload fields make (RFC 7296 section 3.2).

use super::auth::Authentication;
use super::certificate::{Certificate, CertificateRequest};
use super::code_point::PayloadType;
use super::config::Configuration;
use super::delete::Delete;
use super::error::{DecodeError, EncodeError, Malformed, TooMany};
use super::identification::Identification;
use super::key_exchange::KeyExchange;
use super::limits::MAX_PAYLOADS;
use super::notify::Notify;
use super::opaque::{Eap, Nonce, PuzzleSolution, UnknownPayload, VendorId};
use super::reader::Reader;
use super::sa::SecurityAssociation;
use super::ts_payload::TrafficSelectors;
use super::writer::Writer;

const CRITICAL: u8 = 0x80;
const GENERIC_HEADER_LEN: usize = 4;
/// What an IKE_AUTH with shared keys and a Child SA needs, octets.
const USUAL_LEN: usize = 320;

/// Any payload but the Encrypted ones, which are part of [`Message`](super::Message).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    /// Security Association.
    Sa(SecurityAssociation),
    /// Key Exchange.
    Ke(KeyExchange<'a>),
    /// Identification of the initiator.
    IdI(Identification<'a>),
    /// Identification of the responder.
    IdR(Identification<'a>),
    /// Certificate.
    Cert(Certificate<'a>),
    /// Certificate Request.
    CertReq(CertificateRequest<'a>),
    /// Authentication.
    Auth(Authentication<'a>),
    /// Nonce.
    Nonce(Nonce<'a>),
    /// Notify.
    Notify(Notify<'a>),
    /// Delete.
    Delete(Delete),
    /// Vendor ID.
    VendorId(VendorId<'a>),
    /// Traffic Selectors of the initiator.
    TsI(TrafficSelectors),
    /// Traffic Selectors of the responder.
    TsR(TrafficSelectors),
    /// Configuration.
    Cp(Configuration<'a>),
    /// Extensible Authentication Protocol.
    Eap(Eap<'a>),
    /// Puzzle Solution.
    Ps(PuzzleSolution<'a>),
    /// A type this code does not know.
    Unknown(UnknownPayload<'a>),
}

/// A chain of payloads in bytes: the plain content of an Encrypted payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayloadChain {
    /// Type of the first payload, [`PayloadType::NONE`] if there is none.
    pub first: PayloadType,
    /// The payloads, generic headers included.
    pub bytes: Vec<u8>,
}

impl PayloadChain {
    /// Puts payloads into bytes, in their order.
    pub fn encode(payloads: &[Payload<'_>]) -> Result<Self, EncodeError> {
        let mut writer = Writer::with_capacity(USUAL_LEN);
        let first = write_chain(&mut writer, payloads, PayloadType::NONE)?;
        Ok(Self { first, bytes: writer.into_bytes() })
    }
}

/// Reads the payloads that were in an Encrypted payload. `first` is the Next Payload field of its generic header;
/// offsets in errors count from the start of `content`.
pub fn decode_chain(first: PayloadType, content: &[u8]) -> Result<Vec<Payload<'_>>, DecodeError> {
    let mut reader = Reader::new(content);
    match read_chain(&mut reader, first, 0)? {
        (payloads, None) => Ok(payloads),
        (_, Some(encrypted)) => Err(DecodeError::new(Malformed::NestedEncrypted, encrypted.header_at)),
    }
}

/// An Encrypted payload as the chain ends in it.
pub(super) struct ChainEnd<'a> {
    /// SK or SKF.
    pub(super) payload_type: PayloadType,
    /// Next Payload of its generic header.
    pub(super) first_inner: PayloadType,
    /// Offset of the Next Payload field that names this payload.
    pub(super) named_at: usize,
    /// Offset of its generic header.
    pub(super) header_at: usize,
    /// What follows the generic header.
    pub(super) body: Reader<'a>,
}

/// Reads payloads up to the end or to an Encrypted payload, which has to be the last. `named_at` is the offset of the
/// field that `first` came from.
pub(super) fn read_chain<'a>(
    reader: &mut Reader<'a>,
    first: PayloadType,
    mut named_at: usize,
) -> Result<(Vec<Payload<'a>>, Option<ChainEnd<'a>>), DecodeError> {
    let mut payloads = Vec::new();
    let mut payload_type = first;
    while payload_type != PayloadType::NONE {
        let start = reader.clone();
        if payloads.len() == MAX_PAYLOADS {
            return Err(start.error(Malformed::TooMany(TooMany::Payloads)));
        }
        let (generic, mut body) = read_generic(reader).map_err(|error| error.within(payload_type))?;
        if matches!(payload_type, PayloadType::SK | PayloadType::SKF) {
            reader.finish("Encrypted payload")?;
            let header_at = start.offset();
            let first_inner = generic.next;
            return Ok((payloads, Some(ChainEnd { payload_type, first_inner, named_at, header_at, body })));
        }
        if is_unique(payload_type)
            && payloads.iter().any(|seen: &Payload<'_>| seen.payload_type() == payload_type)
        {
            return Err(start.error(Malformed::Duplicate(payload_type)));
        }
        let payload = Payload::decode(payload_type, generic.critical, &start, &mut body);
        payloads.push(payload.map_err(|error| error.within(payload_type))?);
        named_at = start.offset();
        payload_type = generic.next;
    }
    reader.finish("last payload")?;
    Ok((payloads, None))
}

/// Appends payloads, the last of which names `last_next`. Returns the type of the first.
pub(super) fn write_chain(
    writer: &mut Writer,
    payloads: &[Payload<'_>],
    last_next: PayloadType,
) -> Result<PayloadType, EncodeError> {
    if payloads.len() > MAX_PAYLOADS {
        return Err(EncodeError::TooMany(TooMany::Payloads));
    }
    for (index, payload) in payloads.iter().enumerate() {
        let next = payloads.get(index + 1).map_or(last_next, Payload::payload_type);
        writer.u8(next.0);
        writer.u8(0);
        let length = writer.counted(2);
        payload.encode_body(writer)?;
        writer.close(length, "payload")?;
    }
    Ok(payloads.first().map_or(last_next, Payload::payload_type))
}

struct Generic {
    next: PayloadType,
    critical: bool,
}

fn read_generic<'a>(reader: &mut Reader<'a>) -> Result<(Generic, Reader<'a>), DecodeError> {
    let start = reader.clone();
    let next = PayloadType(reader.u8("Next Payload")?);
    let critical = reader.u8("critical bit")? & CRITICAL != 0;
    let declared = usize::from(reader.u16("Payload Length")?);
    let len = declared
        .checked_sub(GENERIC_HEADER_LEN)
        .ok_or_else(|| start.error(Malformed::Length { what: "payload", declared }))?;
    Ok((Generic { next, critical }, reader.sub(len, "payload")?))
}

/// No exchange has two of these in one message; taking the one or the other would be a guess.
const fn is_unique(payload_type: PayloadType) -> bool {
    matches!(
        payload_type,
        PayloadType::SA
            | PayloadType::KE
            | PayloadType::ID_I
            | PayloadType::ID_R
            | PayloadType::AUTH
            | PayloadType::NONCE
            | PayloadType::TS_I
            | PayloadType::TS_R
            | PayloadType::EAP
            | PayloadType::PS
    )
}

impl<'a> Payload<'a> {
    /// Its type, which the Next Payload field before it carries.
    pub const fn payload_type(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::Ke(_) => PayloadType::KE,
            Self::IdI(_) => PayloadType::ID_I,
            Self::IdR(_) => PayloadType::ID_R,
            Self::Cert(_) => PayloadType::CERT,
            Self::CertReq(_) => PayloadType::CERTREQ,
            Self::Auth(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::VendorId(_) => PayloadType::VENDOR_ID,
            Self::TsI(_) => PayloadType::TS_I,
            Self::TsR(_) => PayloadType::TS_R,
            Self::Cp(_) => PayloadType::CP,
            Self::Eap(_) => PayloadType::EAP,
            Self::Ps(_) => PayloadType::PS,
            Self::Unknown(unknown) => unknown.payload_type,
        }
    }

    fn decode(
        payload_type: PayloadType,
        critical: bool,
        start: &Reader<'a>,
        body: &mut Reader<'a>,
    ) -> Result<Self, DecodeError> {
        let payload = match payload_type {
            PayloadType::SA => Self::Sa(SecurityAssociation::decode(body)?),
            PayloadType::KE => Self::Ke(KeyExchange::decode(body)?),
            PayloadType::ID_I => Self::IdI(Identification::decode(body)?),
            PayloadType::ID_R => Self::IdR(Identification::decode(body)?),
            PayloadType::CERT => Self::Cert(Certificate::decode(body)?),
            PayloadType::CERTREQ => Self::CertReq(CertificateRequest::decode(body)?),
            PayloadType::AUTH => Self::Auth(Authentication::decode(body)?),
            PayloadType::NONCE => Self::Nonce(Nonce::decode(body)?),
            PayloadType::NOTIFY => Self::Notify(Notify::decode(body)?),
            PayloadType::DELETE => Self::Delete(Delete::decode(body)?),
            PayloadType::VENDOR_ID => Self::VendorId(VendorId(body.rest().into())),
            PayloadType::TS_I => Self::TsI(TrafficSelectors::decode(body)?),
            PayloadType::TS_R => Self::TsR(TrafficSelectors::decode(body)?),
            PayloadType::CP => Self::Cp(Configuration::decode(body)?),
            PayloadType::EAP => Self::Eap(Eap::decode(body)?),
            PayloadType::PS => Self::Ps(PuzzleSolution::decode(body)?),
            _ if critical => return Err(start.error(Malformed::UnsupportedCritical(payload_type))),
            _ => Self::Unknown(UnknownPayload { payload_type, body: body.rest().into() }),
        };
        body.finish("payload content")?;
        Ok(payload)
    }

    fn encode_body(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Sa(payload) => payload.encode(writer)?,
            Self::Ke(payload) => payload.encode(writer),
            Self::IdI(payload) | Self::IdR(payload) => payload.encode(writer),
            Self::Cert(payload) => payload.encode(writer),
            Self::CertReq(payload) => payload.encode(writer),
            Self::Auth(payload) => payload.encode(writer),
            Self::Nonce(payload) => payload.encode(writer)?,
            Self::Notify(payload) => payload.encode(writer)?,
            Self::Delete(payload) => payload.encode(writer)?,
            Self::VendorId(VendorId(octets)) | Self::Eap(Eap(octets)) | Self::Ps(PuzzleSolution(octets)) => {
                writer.bytes(octets);
            }
            Self::TsI(payload) | Self::TsR(payload) => payload.encode(writer)?,
            Self::Cp(payload) => payload.encode(writer)?,
            Self::Unknown(unknown) => writer.bytes(&unknown.body),
        }
        Ok(())
    }
}

macro_rules! accessors {
    ($($name:ident: $variant:ident($content:ty), $label:literal;)*) => {
        /// For `payloads.iter().find_map(Payload::as_nonce)` and the like.
        impl<'a> Payload<'a> {
            $(
                #[doc = concat!("The content, if it is ", $label, ".")]
                pub const fn $name(&self) -> Option<&$content> {
                    match self {
                        Self::$variant(content) => Some(content),
                        _ => None,
                    }
                }
            )*
        }
    };
}

accessors! {
    as_sa: Sa(SecurityAssociation), "SA";
    as_ke: Ke(KeyExchange<'a>), "KE";
    as_id_i: IdI(Identification<'a>), "IDi";
    as_id_r: IdR(Identification<'a>), "IDr";
    as_cert: Cert(Certificate<'a>), "CERT";
    as_certreq: CertReq(CertificateRequest<'a>), "CERTREQ";
    as_auth: Auth(Authentication<'a>), "AUTH";
    as_nonce: Nonce(Nonce<'a>), "a nonce";
    as_notify: Notify(Notify<'a>), "a notification";
    as_delete: Delete(Delete), "a Delete payload";
    as_vendor_id: VendorId(VendorId<'a>), "a Vendor ID";
    as_ts_i: TsI(TrafficSelectors), "TSi";
    as_ts_r: TsR(TrafficSelectors), "TSr";
    as_cp: Cp(Configuration<'a>), "CP";
    as_eap: Eap(Eap<'a>), "EAP";
    as_ps: Ps(PuzzleSolution<'a>), "PS";
}
