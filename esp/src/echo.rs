//! ESP echo, encrypted mode: the messages (draft-ietf-ipsecme-encrypted-esp-ping, merged text of August 2026,
//! section 5.3).
//!
//! ```text
//! | Sub-type 8 | R 1 | Reserved 7 | Data Length 16 | Identifier 16 | Sequence Number 16 | Reply path SPI 32 | Data |
//! ```
//!
//! A message is the payload of one ESP packet with [`NextHeader::AGGFRAG`](crate::NextHeader::AGGFRAG), alone
//! (section 5.2). Who answers which request, and what a reply proves, is decided elsewhere.

use core::fmt;

use portcullis_common::{DropReason, Spi};

/// Octets before the data.
pub const ECHO_HEADER_LEN: usize = 12;

/// The R flag in the second octet; the other bits are reserved.
const REPLY_WANTED: u8 = 0x80;
/// AGGFRAG sub-types of RFC 9347 section 6.1: data, and data with congestion control information.
const IPTFS_SUB_TYPES: [u8; 2] = [0, 1];

/// The AGGFRAG sub-types that mean echo. IANA has assigned none yet: the default is what early revisions of the
/// draft asked for, 2 and 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EchoSubTypes {
    request: u8,
    reply: u8,
}

/// Sub-types that are equal, or those of RFC 9347.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidSubTypes;

/// Which of the two messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EchoKind {
    /// ESP-ECHO-REQUEST.
    Request,
    /// ESP-ECHO-REPLY.
    Reply,
}

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Echo<'a> {
    /// Request or reply.
    pub kind: EchoKind,
    /// The R flag: a reply is asked for. Without it none must be sent (section 5.4).
    pub wants_reply: bool,
    /// Tells the sessions of a sender apart.
    pub identifier: u16,
    /// Counts the requests of a session.
    pub sequence: u16,
    /// The SA that the reply should use: an inbound SA of the sender. Means nothing without the R flag.
    pub reply_spi: Spi,
    /// Any octets; a reply repeats them.
    pub data: &'a [u8],
}

/// Why a payload is no echo message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EchoError {
    /// Another AGGFRAG sub-type, or no octet at all.
    OtherSubType,
    /// Shorter than its header, or than its Data Length says.
    Truncated,
}

/// A message that does not fit the buffer, or data that its length field cannot tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EchoTooLong;

impl EchoSubTypes {
    /// What early revisions of the draft asked for.
    pub const DEFAULT: Self = Self { request: 2, reply: 3 };

    /// Sub-types other than the default.
    ///
    /// # Errors
    /// [`InvalidSubTypes`] if they are equal or those of RFC 9347.
    pub const fn new(request: u8, reply: u8) -> Result<Self, InvalidSubTypes> {
        let taken = IPTFS_SUB_TYPES[1];
        if request == reply || request <= taken || reply <= taken {
            return Err(InvalidSubTypes);
        }
        Ok(Self { request, reply })
    }

    /// The number of a kind.
    pub const fn number(self, kind: EchoKind) -> u8 {
        match kind {
            EchoKind::Request => self.request,
            EchoKind::Reply => self.reply,
        }
    }

    fn kind(self, number: u8) -> Option<EchoKind> {
        [EchoKind::Request, EchoKind::Reply].into_iter().find(|kind| self.number(*kind) == number)
    }
}

impl Default for EchoSubTypes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl<'a> Echo<'a> {
    /// Reads the payload of an ESP packet with next header 144. Reserved bits are ignored, and so is what follows the
    /// data: a sender may have hidden the length of the packet (RFC 4303 section 2.7).
    ///
    /// # Errors
    /// See [`EchoError`].
    pub fn parse(payload: &'a [u8], sub_types: EchoSubTypes) -> Result<Self, EchoError> {
        let sub_type = *payload.first().ok_or(EchoError::OtherSubType)?;
        let kind = sub_types.kind(sub_type).ok_or(EchoError::OtherSubType)?;
        let (header, rest) = payload.split_first_chunk::<ECHO_HEADER_LEN>().ok_or(EchoError::Truncated)?;
        let [_, flags, l1, l0, i1, i0, s1, s0, spi @ ..] = *header;
        let data = rest.get(..usize::from(u16::from_be_bytes([l1, l0]))).ok_or(EchoError::Truncated)?;
        Ok(Self {
            kind,
            wants_reply: flags & REPLY_WANTED != 0,
            identifier: u16::from_be_bytes([i1, i0]),
            sequence: u16::from_be_bytes([s1, s0]),
            reply_spi: Spi::from_be_bytes(spi),
            data,
        })
    }

    /// Octets of the message.
    pub fn len(&self) -> usize {
        ECHO_HEADER_LEN + self.data.len()
    }

    /// A message is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the message to the front of `buffer`, reserved bits zero; returns its length.
    ///
    /// # Errors
    /// [`EchoTooLong`]; the buffer is then unchanged.
    pub fn write(&self, sub_types: EchoSubTypes, buffer: &mut [u8]) -> Result<usize, EchoTooLong> {
        let data_len = u16::try_from(self.data.len()).map_err(|_| EchoTooLong)?;
        let message = buffer.get_mut(..self.len()).ok_or(EchoTooLong)?;
        let (header, data) = message.split_first_chunk_mut::<ECHO_HEADER_LEN>().ok_or(EchoTooLong)?;
        let flags = if self.wants_reply { REPLY_WANTED } else { 0 };
        let [l1, l0] = data_len.to_be_bytes();
        let ([i1, i0], [s1, s0]) = (self.identifier.to_be_bytes(), self.sequence.to_be_bytes());
        let [p3, p2, p1, p0] = self.reply_spi.to_be_bytes();
        *header = [sub_types.number(self.kind), flags, l1, l0, i1, i0, s1, s0, p3, p2, p1, p0];
        data.copy_from_slice(self.data);
        Ok(self.len())
    }
}

/// Makes the request at the front of `payload` its own reply: a copy with another sub-type, of at most `max_len`
/// octets (section 5.4). Returns the length of the reply, which is never more than that of the request.
///
/// # Errors
/// [`EchoError`] if there is no request; [`EchoError::Truncated`] also if `max_len` has no room for the header. The
/// payload is then unchanged.
pub fn turn_into_reply(
    payload: &mut [u8],
    sub_types: EchoSubTypes,
    max_len: usize,
) -> Result<usize, EchoError> {
    let request = Echo::parse(payload, sub_types)?;
    if request.kind != EchoKind::Request {
        return Err(EchoError::OtherSubType);
    }
    let room = max_len.checked_sub(ECHO_HEADER_LEN).ok_or(EchoError::Truncated)?;
    // Not more than the data, whose length has 16 bits.
    let data_len = request.data.len().min(room);
    let [sub_type, _, length @ ..] = payload.first_chunk_mut::<4>().ok_or(EchoError::Truncated)?;
    *sub_type = sub_types.number(EchoKind::Reply);
    *length = (data_len as u16).to_be_bytes();
    Ok(ECHO_HEADER_LEN + data_len)
}

impl From<EchoError> for DropReason {
    fn from(error: EchoError) -> Self {
        match error {
            EchoError::OtherSubType => Self::Aggfrag,
            EchoError::Truncated => Self::EchoMalformed,
        }
    }
}

impl fmt::Display for EchoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DropReason::from(*self).label())
    }
}

impl fmt::Display for InvalidSubTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sub-types of ESP echo are two different numbers above 1")
    }
}

impl fmt::Display for EchoTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room for the echo message")
    }
}

impl core::error::Error for EchoError {}
impl core::error::Error for InvalidSubTypes {}
impl core::error::Error for EchoTooLong {}
