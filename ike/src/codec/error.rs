//! Why bytes are not a message, and why a message cannot be put into bytes.

use core::fmt;

use super::code_point::{IdType, KeMethod, NotifyType, PayloadType, ProtocolId, TsType};

/// Bytes that are not IKEv2, or that ask for what nobody may skip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// What is wrong.
    pub cause: Malformed,
    /// In which payload; `None` in the IKE header and between payloads.
    pub payload: Option<PayloadType>,
    /// Where, in octets from the start of what was decoded.
    pub offset: usize,
}

/// The fault in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Malformed {
    /// A field is longer than what is left.
    Truncated {
        /// The field.
        field: &'static str,
        /// Octets it needs.
        needed: usize,
        /// Octets that are left.
        left: usize,
    },
    /// Octets follow where nothing may follow.
    TrailingBytes {
        /// What had ended.
        after: &'static str,
        /// How many follow.
        count: usize,
    },
    /// The Length of the IKE header is not that of the message.
    MessageLength {
        /// In the header.
        declared: u32,
        /// Of the message.
        actual: usize,
    },
    /// The message is longer than [`MAX_MESSAGE_LEN`](super::MAX_MESSAGE_LEN).
    MessageTooLong(usize),
    /// A major version other than 2 (RFC 7296 section 2.5).
    MajorVersion(u8),
    /// The initiator's SPI is zero (RFC 7296 section 3.1).
    ZeroInitiatorSpi,
    /// A payload or substructure shorter than its own header.
    Length {
        /// What it is.
        what: &'static str,
        /// Its declared length in octets.
        declared: usize,
    },
    /// A list is longer than its limit.
    TooMany(TooMany),
    /// A payload with the critical bit that this code does not know (RFC 7296 section 2.5).
    UnsupportedCritical(PayloadType),
    /// A second payload of a type that no message has twice.
    Duplicate(PayloadType),
    /// An Encrypted payload inside another (RFC 7296 section 3.1).
    NestedEncrypted,
    /// The Encrypted payload has no room for IV, Pad Length and ICV.
    EncryptedTooShort(usize),
    /// Pad Length is longer than the decrypted content.
    Padding(u8),
    /// Fragment Number 0, Total Fragments 0, or the one above the other (RFC 7383 section 2.6).
    Fragment {
        /// Fragment Number.
        number: u16,
        /// Total Fragments.
        total: u16,
    },
    /// A fragment after the first names a payload (RFC 7383 section 2.5).
    FragmentNextPayload(PayloadType),
    /// A list that must not be empty is.
    Empty(&'static str),
    /// Last Substruc contradicts what follows, or is no known value (RFC 7296 sections 3.3.1 and 3.3.2).
    LastSubstruc(u8),
    /// Proposal numbers do not count up (RFC 7296 section 3.3.1).
    ProposalNumber {
        /// The one that had to come.
        expected: u8,
        /// The one that came.
        found: u8,
    },
    /// An SPI of a size that its protocol does not have.
    SpiSize {
        /// The protocol.
        protocol: ProtocolId,
        /// Octets.
        size: u8,
    },
    /// Key Exchange Data of a length that the method does not have.
    KeyExchangeLength {
        /// The method.
        method: KeMethod,
        /// Octets.
        len: usize,
    },
    /// A nonce shorter than 16 or longer than 256 octets (RFC 7296 section 3.9).
    NonceLength(usize),
    /// Puzzle Solution Data that is empty or not four keys of the same size, in octets (RFC 8019 section 8.2).
    PuzzleSolutionLength(usize),
    /// An address identity of a length that no such address has.
    IdentificationLength {
        /// Its type.
        id_type: IdType,
        /// Octets.
        len: usize,
    },
    /// A traffic selector of a length that its type does not have.
    SelectorLength {
        /// Its type.
        ts_type: TsType,
        /// Octets.
        len: usize,
    },
    /// A traffic selector that ends before it starts.
    AddressRange,
    /// Ports that end before they start and are not OPAQUE.
    PortRange {
        /// Start Port.
        start: u16,
        /// End Port.
        end: u16,
    },
    /// The Length of the EAP message is not that of its payload (RFC 7296 section 3.16).
    EapLength {
        /// In the EAP message.
        declared: u16,
        /// Of the payload.
        actual: usize,
    },
}

/// Lists with a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TooMany {
    /// More than [`MAX_PAYLOADS`](super::MAX_PAYLOADS).
    Payloads,
    /// More than [`MAX_PROPOSALS`](super::MAX_PROPOSALS).
    Proposals,
    /// More than [`MAX_TRANSFORMS`](super::MAX_TRANSFORMS), or more than 255 in one proposal.
    Transforms,
    /// More than [`MAX_ATTRIBUTES`](super::MAX_ATTRIBUTES).
    Attributes,
    /// More than [`MAX_TRAFFIC_SELECTORS`](super::MAX_TRAFFIC_SELECTORS).
    TrafficSelectors,
    /// More than [`MAX_SPIS`](super::MAX_SPIS).
    Spis,
    /// More than [`MAX_CONFIGURATION_ATTRIBUTES`](super::MAX_CONFIGURATION_ATTRIBUTES).
    ConfigurationAttributes,
}

impl DecodeError {
    pub(super) const fn new(cause: Malformed, offset: usize) -> Self {
        Self { cause, payload: None, offset }
    }

    pub(super) fn within(self, payload: PayloadType) -> Self {
        Self { payload: self.payload.or(Some(payload)), ..self }
    }

    /// What RFC 7296 section 2.21 calls this. Whether it is sent at all is for the endpoint to decide. The data of
    /// UNSUPPORTED_CRITICAL_PAYLOAD is the one octet of [`Malformed::UnsupportedCritical`].
    pub const fn notify_type(&self) -> NotifyType {
        match self.cause {
            Malformed::UnsupportedCritical(_) => NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
            Malformed::MajorVersion(_) => NotifyType::INVALID_MAJOR_VERSION,
            _ => NotifyType::INVALID_SYNTAX,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at octet {}", self.cause, self.offset)?;
        match self.payload {
            Some(payload) => write!(f, " in payload {payload}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { field, needed, left } => {
                write!(f, "{field} needs {needed} octets, {left} are left")
            }
            Self::TrailingBytes { after, count } => write!(f, "{count} octets follow the {after}"),
            Self::MessageLength { declared, actual } => {
                write!(f, "header says {declared} octets, message has {actual}")
            }
            Self::MessageTooLong(len) => write!(f, "message of {len} octets is too long"),
            Self::MajorVersion(version) => write!(f, "major version {version}"),
            Self::ZeroInitiatorSpi => f.write_str("initiator's SPI is zero"),
            Self::Length { what, declared } => write!(f, "{what} of {declared} octets is too short"),
            Self::TooMany(list) => write!(f, "too many {list}"),
            Self::UnsupportedCritical(payload) => write!(f, "unsupported critical payload {payload}"),
            Self::Duplicate(payload) => write!(f, "second payload {payload}"),
            Self::NestedEncrypted => f.write_str("Encrypted payload inside an Encrypted payload"),
            Self::EncryptedTooShort(len) => write!(f, "Encrypted payload of {len} octets is too short"),
            Self::Padding(len) => write!(f, "{len} octets of padding do not fit"),
            Self::Fragment { number, total } => write!(f, "fragment {number} of {total}"),
            Self::FragmentNextPayload(next) => write!(f, "fragment with next payload {next}"),
            Self::Empty(list) => write!(f, "no {list}"),
            Self::LastSubstruc(value) => write!(f, "wrong Last Substruc {value}"),
            Self::ProposalNumber { expected, found } => {
                write!(f, "proposal {found} where {expected} was due")
            }
            Self::SpiSize { protocol, size } => write!(f, "SPI of {size} octets for protocol {protocol}"),
            Self::KeyExchangeLength { method, len } => {
                write!(f, "{len} octets of Key Exchange Data for {method}")
            }
            Self::NonceLength(len) => write!(f, "nonce of {len} octets"),
            Self::PuzzleSolutionLength(len) => write!(f, "puzzle solution of {len} octets"),
            Self::IdentificationLength { id_type, len } => write!(f, "{id_type} of {len} octets"),
            Self::SelectorLength { ts_type, len } => write!(f, "{ts_type} of {len} octets"),
            Self::AddressRange => f.write_str("address range ends before it starts"),
            Self::PortRange { start, end } => write!(f, "ports {start} to {end}"),
            Self::EapLength { declared, actual } => {
                write!(f, "EAP message says {declared} octets, payload has {actual}")
            }
        }
    }
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payloads => "payloads",
            Self::Proposals => "proposals",
            Self::Transforms => "transforms",
            Self::Attributes => "transform attributes",
            Self::TrafficSelectors => "traffic selectors",
            Self::Spis => "SPIs",
            Self::ConfigurationAttributes => "configuration attributes",
        })
    }
}

/// A value that the wire format cannot carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncodeError {
    /// Longer than its length field, or than a message may be.
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length in octets.
        len: usize,
        /// The most there is room for.
        max: usize,
    },
    /// More than one may send, or than its count field can say.
    TooMany(TooMany),
    /// The cipher refused.
    Seal,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { what, len, max } => write!(f, "{what} of {len} octets, {max} at most"),
            Self::TooMany(list) => write!(f, "too many {list}"),
            Self::Seal => f.write_str("message cannot be encrypted"),
        }
    }
}

impl std::error::Error for EncodeError {}
