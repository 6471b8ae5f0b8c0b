//! The Encrypted payload and its fragments: where their parts lie (RFC 7296 section 3.14, RFC 5282, RFC 7383), and
//! what of them AUTH covers (RFC 9242 section 3.3.2). What the parts are encrypted with is not known here.

use super::code_point::PayloadType;
use super::error::{DecodeError, EncodeError, Malformed};
use super::header::{HEADER_LEN, Header, LENGTH_AT};
use super::message::message_len;
use super::payload::{ChainEnd, Payload, write_chain};
use super::reader::Reader;
use super::writer::{Writer, fit_u16, put};

const GENERIC_HEADER_LEN: usize = 4;
const FRAGMENT_HEADER_LEN: usize = 4;
const PAD_LENGTH_LEN: usize = 1;

/// Which part of a message an Encrypted Fragment payload holds (RFC 7383 section 2.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fragment {
    /// Fragment Number, from 1.
    pub number: u16,
    /// Total Fragments.
    pub total: u16,
}

/// What a cipher adds to the content. AEAD algorithms need no alignment (RFC 5282 section 3), so padding is
/// accepted and not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CipherLayout {
    /// Octets of the Initialization Vector.
    pub iv_len: usize,
    /// Octets of the Integrity Check Value.
    pub icv_len: usize,
}

impl CipherLayout {
    /// Octets that a message has beside its content, from the IKE header to the ICV.
    pub const fn overhead(self, is_fragment: bool) -> usize {
        let fragment_header = if is_fragment { FRAGMENT_HEADER_LEN } else { 0 };
        HEADER_LEN + GENERIC_HEADER_LEN + fragment_header + self.iv_len + PAD_LENGTH_LEN + self.icv_len
    }
}

/// The Encrypted payload (SK) or Encrypted Fragment payload (SKF) of a received message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encrypted<'a> {
    /// Which fragment, if it is SKF.
    pub fragment: Option<Fragment>,
    /// Type of the first payload inside.
    pub first_inner: PayloadType,
    /// The associated data of AEAD: from the IKE header to the octet before the IV (RFC 5282 section 5.1).
    pub associated_data: &'a [u8],
    /// IV, encrypted content, padding and Pad Length, ICV.
    pub body: &'a [u8],
    named_at: usize,
    header_at: usize,
}

impl<'a> Encrypted<'a> {
    pub(super) fn decode(message: &'a [u8], end: ChainEnd<'a>) -> Result<Self, DecodeError> {
        let ChainEnd { payload_type, first_inner, named_at, header_at, mut body } = end;
        let fragment = if payload_type == PayloadType::SKF {
            let at = body.clone();
            let fragment = read_fragment(&mut body).map_err(|error| error.within(payload_type))?;
            if fragment.number != 1 && first_inner != PayloadType::NONE {
                return Err(at.error(Malformed::FragmentNextPayload(first_inner)).within(payload_type));
            }
            Some(fragment)
        } else {
            None
        };
        let associated_data = message.get(..body.offset()).unwrap_or_default();
        Ok(Self { fragment, first_inner, associated_data, body: body.rest(), named_at, header_at })
    }

    /// IV, and what follows it: encrypted content with padding and Pad Length, and ICV.
    pub fn split(&self, layout: CipherLayout) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
        let too_short =
            DecodeError::new(Malformed::EncryptedTooShort(self.body.len()), self.associated_data.len());
        let (iv, rest) = self.body.split_at_checked(layout.iv_len).ok_or(too_short)?;
        if rest.len() < PAD_LENGTH_LEN + layout.icv_len { Err(too_short) } else { Ok((iv, rest)) }
    }

    /// The content of decrypted octets, without padding and Pad Length. Offsets count from the start of `text`.
    pub fn content(text: &[u8]) -> Result<&[u8], DecodeError> {
        let (pad_length, rest) =
            text.split_last().ok_or(DecodeError::new(Malformed::EncryptedTooShort(0), 0))?;
        rest.len()
            .checked_sub((*pad_length).into())
            .and_then(|len| rest.get(..len))
            .ok_or(DecodeError::new(Malformed::Padding(*pad_length), rest.len()))
    }

    /// IntAuth_[i/r]*A of RFC 9242 section 3.3.2 for a message with `content_len` octets of plain content: IKE header,
    /// payloads in clear and generic header, with lengths as if nothing were encrypted. For a message that came in
    /// fragments, call it on the first and pass the length of the whole content.
    pub fn int_auth_a(&self, content_len: usize) -> Result<Vec<u8>, EncodeError> {
        let mut octets = self.associated_data.to_vec();
        octets.truncate(self.header_at + GENERIC_HEADER_LEN);
        put(&mut octets, self.named_at, &[PayloadType::SK.0]);
        adjust_lengths(&mut octets, self.header_at, content_len)?;
        Ok(octets)
    }
}

fn read_fragment(body: &mut Reader<'_>) -> Result<Fragment, DecodeError> {
    let at = body.clone();
    let (number, total) = (body.u16("Fragment Number")?, body.u16("Total Fragments")?);
    if number == 0 || number > total {
        return Err(at.error(Malformed::Fragment { number, total }));
    }
    Ok(Fragment { number, total })
}

/// A message whose last payload is to be encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Protected<'a> {
    /// The IKE header.
    pub header: &'a Header,
    /// Payloads in clear before the Encrypted payload; usually none.
    pub clear: &'a [Payload<'a>],
    /// Type of the first payload inside; `NONE` in fragments after the first.
    pub first_inner: PayloadType,
    /// Which fragment; `None` makes SK.
    pub fragment: Option<Fragment>,
}

/// What a cipher works on, in one message.
#[derive(Debug)]
pub struct SealParts<'a> {
    /// Everything before the IV.
    pub associated_data: &'a [u8],
    /// To be filled in.
    pub iv: &'a mut [u8],
    /// Content and Pad Length, to be encrypted in place.
    pub text: &'a mut [u8],
    /// To be filled in.
    pub icv: &'a mut [u8],
}

impl<'a> Protected<'a> {
    /// A message with nothing in clear, whole.
    pub const fn whole(header: &'a Header, first_inner: PayloadType) -> Self {
        Self { header, clear: &[], first_inner, fragment: None }
    }

    /// Lays the message out around `content` and lets `seal` encrypt it. `None` from `seal` is [`EncodeError::Seal`].
    pub fn seal(
        &self,
        content: &[u8],
        layout: CipherLayout,
        seal: impl FnOnce(SealParts<'_>) -> Option<()>,
    ) -> Result<Vec<u8>, EncodeError> {
        let (mut writer, header_at) = self.write_head()?;
        if let Some(fragment) = self.fragment {
            writer.u16(fragment.number);
            writer.u16(fragment.total);
        }
        let body_at = writer.len();
        let total = body_at + layout.iv_len + content.len() + PAD_LENGTH_LEN + layout.icv_len;
        let len = message_len(total)?;
        let payload_len = fit_u16(total - header_at, "Encrypted payload")?;
        let mut bytes = writer.into_bytes();
        put(&mut bytes, LENGTH_AT, &len.to_be_bytes());
        put(&mut bytes, header_at + 2, &payload_len.to_be_bytes());
        // Responses and requests are kept for retransmission: no more than they need.
        bytes.reserve_exact(total - bytes.len());
        bytes.resize(body_at + layout.iv_len, 0);
        bytes.extend_from_slice(content);
        bytes.resize(total, 0);
        let (associated_data, body) = bytes.split_at_mut_checked(body_at).ok_or(EncodeError::Seal)?;
        let (iv, rest) = body.split_at_mut_checked(layout.iv_len).ok_or(EncodeError::Seal)?;
        let (text, icv) =
            rest.split_at_mut_checked(content.len() + PAD_LENGTH_LEN).ok_or(EncodeError::Seal)?;
        seal(SealParts { associated_data, iv, text, icv }).ok_or(EncodeError::Seal)?;
        Ok(bytes)
    }

    /// IntAuth_[i/r]*A of RFC 9242 section 3.3.2 for this message, before fragmentation, with `content_len` octets of
    /// plain content.
    pub fn int_auth_a(&self, content_len: usize) -> Result<Vec<u8>, EncodeError> {
        let (writer, header_at) = Self { fragment: None, ..*self }.write_head()?;
        let mut octets = writer.into_bytes();
        adjust_lengths(&mut octets, header_at, content_len)?;
        Ok(octets)
    }

    /// IKE header, payloads in clear and generic header, and where the last begins. Lengths are still zero.
    fn write_head(&self) -> Result<(Writer, usize), EncodeError> {
        let payload_type = if self.fragment.is_some() { PayloadType::SKF } else { PayloadType::SK };
        let mut writer = Writer::with_capacity(HEADER_LEN + GENERIC_HEADER_LEN + FRAGMENT_HEADER_LEN);
        self.header.write(&mut writer, self.clear.first().map_or(payload_type, Payload::payload_type));
        write_chain(&mut writer, self.clear, payload_type)?;
        let header_at = writer.len();
        writer.u8(self.first_inner.0);
        writer.u8(0);
        writer.u16(0);
        Ok((writer, header_at))
    }
}

/// Lengths that count neither IV, padding, Pad Length nor ICV.
fn adjust_lengths(octets: &mut [u8], header_at: usize, content_len: usize) -> Result<(), EncodeError> {
    let message = message_len(octets.len() + content_len)?;
    let payload = fit_u16(GENERIC_HEADER_LEN + content_len, "Encrypted payload")?;
    put(octets, LENGTH_AT, &message.to_be_bytes());
    put(octets, header_at + 2, &payload.to_be_bytes());
    Ok(())
}
