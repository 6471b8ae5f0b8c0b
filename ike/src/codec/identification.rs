//! The Identification payloads (RFC 7296 section 3.5).

use std::borrow::Cow;
use std::net::IpAddr;

use super::code_point::IdType;
use super::error::{DecodeError, Malformed};
use super::reader::Reader;
use super::writer::Writer;

/// Who a peer says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identification<'a> {
    /// ID Type.
    pub id_type: IdType,
    /// RESERVED as received, because AUTH covers it (RFC 7296 section 2.15). Zero in what we send.
    pub reserved: [u8; 3],
    /// Identification Data.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Identification<'a> {
    /// An identity to send.
    pub fn new(id_type: IdType, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { id_type, reserved: [0; 3], data: data.into() }
    }

    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    pub fn from_address(address: IpAddr) -> Identification<'static> {
        match address {
            IpAddr::V4(address) => Identification::new(IdType::IPV4_ADDR, address.octets().to_vec()),
            IpAddr::V6(address) => Identification::new(IdType::IPV6_ADDR, address.octets().to_vec()),
        }
    }

    /// The address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self.id_type {
            IdType::IPV4_ADDR => <[u8; 4]>::try_from(&*self.data).ok().map(IpAddr::from),
            IdType::IPV6_ADDR => <[u8; 16]>::try_from(&*self.data).ok().map(IpAddr::from),
            _ => None,
        }
    }

    /// RestOfInitIDPayload or RestOfRespIDPayload of RFC 7296 section 2.15: the payload without its generic header.
    pub fn body(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.encode(&mut writer);
        writer.into_bytes()
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let id_type = IdType(reader.u8("ID Type")?);
        let reserved = reader.array("RESERVED")?;
        let len = reader.left();
        let fits = match id_type {
            IdType::IPV4_ADDR => len == 4,
            IdType::IPV6_ADDR => len == 16,
            _ => true,
        };
        if !fits {
            return Err(reader.error(Malformed::IdentificationLength { id_type, len }));
        }
        Ok(Self { id_type, reserved, data: reader.rest().into() })
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.u8(self.id_type.0);
        writer.bytes(&self.reserved);
        writer.bytes(&self.data);
    }
}
