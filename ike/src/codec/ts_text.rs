//! Traffic selectors in strongSwan's notation: `10.1.0.0/16`, `10.1.0.1-10.1.0.9`, `::/0[tcp/80]`,
//! `10.0.0.1/32[udp/1000-2000]`, `0.0.0.0/0[gre]`, `0.0.0.0/0[6/opaque]`.

use core::fmt;
use core::str::FromStr;
use std::net::IpAddr;

use super::traffic_selector::{AddressRange, PortRange, TrafficSelector};

/// Why a text is not a traffic selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SelectorSyntaxError {
    /// Not an address.
    Address(String),
    /// Not a prefix length of that address.
    PrefixLength(String),
    /// Bits after the prefix are set; the prefix that was probably meant.
    HostBits(String),
    /// Two families, or the end before the start.
    Range(String),
    /// Not a protocol name or number.
    Protocol(String),
    /// Not a port, range of ports or `opaque`.
    Ports(String),
    /// `[` without `]` at the end.
    Bracket(String),
}

const PROTOCOLS: [(&str, u8); 9] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("l2tp", 115),
    ("sctp", 132),
];

impl FromStr for TrafficSelector {
    type Err = SelectorSyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addresses, protocol_and_ports) = match text.split_once('[') {
            None => (text, None),
            Some((addresses, rest)) => {
                let inside = rest.strip_suffix(']');
                (addresses, Some(inside.ok_or_else(|| SelectorSyntaxError::Bracket(text.into()))?))
            }
        };
        let addresses = parse_addresses(addresses)?;
        let (protocol, ports) =
            protocol_and_ports.map_or(Ok((0, PortRange::ANY)), parse_protocol_and_ports)?;
        Ok(Self { protocol, ports, addresses })
    }
}

fn parse_addresses(text: &str) -> Result<AddressRange, SelectorSyntaxError> {
    let address = |part: &str| part.parse::<IpAddr>().map_err(|_| SelectorSyntaxError::Address(part.into()));
    if let Some((start, end)) = text.split_once('-') {
        let (start, end) = (address(start)?, address(end)?);
        return AddressRange::new(start, end).ok_or_else(|| SelectorSyntaxError::Range(text.into()));
    }
    let Some((start, len)) = text.split_once('/') else {
        let host = address(text)?;
        return AddressRange::new(host, host).ok_or_else(|| SelectorSyntaxError::Range(text.into()));
    };
    let start = address(start)?;
    let width = if start.is_ipv4() { 32 } else { 128 };
    let wrong_len = || SelectorSyntaxError::PrefixLength(len.into());
    let len = len.parse::<u8>().ok().filter(|len| *len <= width).ok_or_else(wrong_len)?;
    AddressRange::from_prefix(start, len).ok_or_else(|| SelectorSyntaxError::HostBits(masked(start, len)))
}

/// The prefix that `address` lies in.
fn masked(address: IpAddr, len: u8) -> String {
    let keep = |width: u8| u128::MAX.checked_shl(width.saturating_sub(len).into()).unwrap_or(0);
    let network = match address {
        IpAddr::V4(v4) => IpAddr::from((v4.to_bits() & keep(32) as u32).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() & keep(128)).to_be_bytes()),
    };
    format!("{network}/{len}")
}

fn parse_protocol_and_ports(text: &str) -> Result<(u8, PortRange), SelectorSyntaxError> {
    let (protocol, ports) = text.split_once('/').map_or((text, None), |(name, ports)| (name, Some(ports)));
    let by_name = PROTOCOLS.iter().find(|(name, _)| *name == protocol).map(|(_, number)| *number);
    let number = match protocol {
        "any" => Some(0),
        _ => by_name.or_else(|| protocol.parse().ok()),
    };
    let number = number.ok_or_else(|| SelectorSyntaxError::Protocol(protocol.into()))?;
    let ports = match ports {
        None | Some("any") => PortRange::ANY,
        Some("opaque") => PortRange::OPAQUE,
        Some(ports) => parse_ports(ports).ok_or_else(|| SelectorSyntaxError::Ports(ports.into()))?,
    };
    Ok((number, ports))
}

fn parse_ports(text: &str) -> Option<PortRange> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (start.parse().ok()?, end.parse().ok()?);
    (start <= end).then(|| PortRange::new(start, end)).flatten()
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.addresses, f)?;
        if self.protocol == 0 && self.ports.is_any() {
            return Ok(());
        }
        match PROTOCOLS.iter().find(|(_, number)| *number == self.protocol) {
            Some((name, _)) => write!(f, "[{name}")?,
            None if self.protocol == 0 => f.write_str("[any")?,
            None => write!(f, "[{}", self.protocol)?,
        }
        match (self.ports.start(), self.ports.end()) {
            _ if self.ports.is_any() => {}
            _ if self.ports.is_opaque() => f.write_str("/opaque")?,
            (start, end) if start == end => write!(f, "/{start}")?,
            (start, end) => write!(f, "/{start}-{end}")?,
        }
        f.write_str("]")
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix() {
            Some((address, len)) => write!(f, "{address}/{len}"),
            None => write!(f, "{}-{}", self.start(), self.end()),
        }
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SelectorSyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text) => write!(f, "`{text}` is no IP address"),
            Self::PrefixLength(text) => write!(f, "`{text}` is no prefix length of this address"),
            Self::HostBits(prefix) => write!(f, "bits after the prefix are set; write `{prefix}`"),
            Self::Range(text) => write!(f, "`{text}` mixes address families or ends before it starts"),
            Self::Protocol(text) => {
                write!(f, "`{text}` is no protocol; write a number, any")?;
                PROTOCOLS.iter().try_for_each(|(name, _)| write!(f, ", {name}"))
            }
            Self::Ports(text) => write!(f, "`{text}` is no port, range of ports, any or opaque"),
            Self::Bracket(text) => write!(f, "`{text}` does not end in `]`"),
        }
    }
}

impl std::error::Error for SelectorSyntaxError {}
