//! The Traffic Selector payloads (RFC 7296 section 3.13).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::code_point::TsType;
use super::error::{DecodeError, EncodeError, Malformed, TooMany};
use super::limits::MAX_TRAFFIC_SELECTORS;
use super::reader::Reader;
use super::traffic_selector::{AddressRange, PortRange, TrafficSelector};
use super::writer::Writer;

/// TSi or TSr.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrafficSelectors {
    /// At least one.
    pub entries: Vec<TsEntry>,
}

/// One selector of a payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TsEntry {
    /// TS_IPV4_ADDR_RANGE or TS_IPV6_ADDR_RANGE.
    Ip(TrafficSelector),
    /// A type this code does not know; a responder ignores it (RFC 7296 section 2.9).
    Unknown(UnknownSelector),
}

/// A selector of unknown type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownSelector {
    /// TS Type.
    pub ts_type: TsType,
    /// The second octet, which for IP types is the protocol.
    pub second_octet: u8,
    /// What follows the length.
    pub body: Box<[u8]>,
}

impl TrafficSelectors {
    /// A payload of IP selectors.
    pub fn new(selectors: &[TrafficSelector]) -> Self {
        Self { entries: selectors.iter().copied().map(TsEntry::Ip).collect() }
    }

    /// The IP selectors, without those of unknown type.
    pub fn ip(&self) -> Vec<TrafficSelector> {
        let ip = |entry: &TsEntry| match entry {
            TsEntry::Ip(selector) => Some(*selector),
            TsEntry::Unknown(_) => None,
        };
        self.entries.iter().filter_map(ip).collect()
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = usize::from(reader.u8("Number of TSs")?);
        reader.take(3, "RESERVED")?;
        if count == 0 {
            return Err(reader.error(Malformed::Empty("traffic selectors")));
        }
        if count > MAX_TRAFFIC_SELECTORS {
            return Err(reader.error(Malformed::TooMany(TooMany::TrafficSelectors)));
        }
        let entries = (0..count).map(|_| TsEntry::decode(reader)).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    pub(super) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let too_many = EncodeError::TooMany(TooMany::TrafficSelectors);
        if self.entries.len() > MAX_TRAFFIC_SELECTORS {
            return Err(too_many);
        }
        writer.u8(u8::try_from(self.entries.len()).map_err(|_| too_many)?);
        writer.bytes(&[0; 3]);
        self.entries.iter().try_for_each(|entry| entry.encode(writer))
    }
}

impl TsEntry {
    const HEADER_LEN: usize = 4;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.clone();
        let ts_type = TsType(reader.u8("TS Type")?);
        let second_octet = reader.u8("IP Protocol ID")?;
        let declared = usize::from(reader.u16("Selector Length")?);
        let wrong = Malformed::SelectorLength { ts_type, len: declared };
        let len = declared.checked_sub(Self::HEADER_LEN).ok_or_else(|| start.error(wrong))?;
        let mut body = reader.sub(len, "traffic selector")?;
        match (ts_type, len) {
            (TsType::IPV4_ADDR_RANGE, 12) => decode_ip::<4, Ipv4Addr>(&mut body, second_octet),
            (TsType::IPV6_ADDR_RANGE, 36) => decode_ip::<16, Ipv6Addr>(&mut body, second_octet),
            (TsType::IPV4_ADDR_RANGE | TsType::IPV6_ADDR_RANGE, _) => Err(start.error(wrong)),
            _ => Ok(Self::Unknown(UnknownSelector { ts_type, second_octet, body: body.rest().into() })),
        }
    }

    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Ip(selector) => {
                let (start, end) = (selector.addresses.start(), selector.addresses.end());
                let ts_type = if start.is_ipv4() { TsType::IPV4_ADDR_RANGE } else { TsType::IPV6_ADDR_RANGE };
                writer.u8(ts_type.0);
                writer.u8(selector.protocol);
                let length = writer.counted(2);
                writer.u16(selector.ports.start());
                writer.u16(selector.ports.end());
                for address in [start, end] {
                    match address {
                        IpAddr::V4(address) => writer.bytes(&address.octets()),
                        IpAddr::V6(address) => writer.bytes(&address.octets()),
                    }
                }
                writer.close(length, "traffic selector")
            }
            Self::Unknown(selector) => {
                writer.u8(selector.ts_type.0);
                writer.u8(selector.second_octet);
                let length = writer.counted(2);
                writer.bytes(&selector.body);
                writer.close(length, "traffic selector")
            }
        }
    }
}

fn decode_ip<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(
    body: &mut Reader<'_>,
    protocol: u8,
) -> Result<TsEntry, DecodeError> {
    let at = body.clone();
    let (start, end) = (body.u16("Start Port")?, body.u16("End Port")?);
    let ports = PortRange::new(start, end).ok_or_else(|| at.error(Malformed::PortRange { start, end }))?;
    let start = A::from(body.array("Starting Address")?).into();
    let end = A::from(body.array("Ending Address")?).into();
    let addresses = AddressRange::new(start, end).ok_or_else(|| at.error(Malformed::AddressRange))?;
    Ok(TsEntry::Ip(TrafficSelector { protocol, ports, addresses }))
}
