//! Sealing: the sending side of an SA (RFC 4303 section 3.3).

use core::fmt;
use core::ops::Range;

use portcullis_common::Spi;

use crate::error::SealError;
use crate::header::{ALIGNMENT, HEAD_LEN, LEAST_ALIGNMENT, NextHeader, least_padded_len, sealed_len};
use crate::key::ExpandedKeymat;
use crate::lifetime::{Expired, Lifetime, LifetimeEvent, LifetimeState};
use crate::live::{OutboundMemory, add, claim, give_back, read, write};
use crate::trailer::{write_least_trailer, write_trailer};
use crate::{Algorithm, OutboundLive};

/// What an outbound SA is made of, besides its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutboundParameters {
    /// The peer's SPI.
    pub spi: Spi,
    /// Extended sequence numbers.
    pub esn: bool,
    /// When to rekey and when to stop.
    pub lifetime: Lifetime,
}

/// An outbound SA. Its owner alone seals with it; an SA with several owners has one value for each ([`Outbound::shared`]).
pub struct Outbound<M> {
    spi: Spi,
    esn: bool,
    is_shared: bool,
    key: ExpandedKeymat,
    lifetime: LifetimeState,
    memory: M,
}

/// A sealed packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Where the ESP packet lies in the buffer.
    pub packet: Range<usize>,
    /// Its sequence number, all 64 bits with ESN.
    pub sequence: u64,
    /// A lifetime that it reached.
    pub event: Option<LifetimeEvent>,
}

impl<M: OutboundMemory> Outbound<M> {
    /// An SA that goes on where `memory` stands: after [`OutboundLive::reset`] it starts with number 1.
    ///
    /// The caller answers for it that no other SA uses `memory`, and that the key was never used with a
    /// number above the one in `memory`.
    pub fn new(parameters: OutboundParameters, key: ExpandedKeymat, memory: M) -> Self {
        let OutboundParameters { spi, esn, mut lifetime } = parameters;
        // A rekey is asked for before the numbers run out, whatever is configured.
        lifetime.soft.packets = lifetime.soft.packets.min(last_sequence(esn) / 4 * 3);
        Self { spi, esn, is_shared: false, key, lifetime: LifetimeState::new(lifetime), memory }
    }

    /// One of several values with the same parameters and key over the same `memory`, which seal at the same time: each claims
    /// its numbers, packets and octets one by one, so that none is used twice and hard limits hold exactly. Packets of different
    /// owners leave in any order: the peer's window has to be wide enough (RFC 4303 section 3.4.3).
    ///
    /// As for [`Outbound::new`]; and every value over this memory is made by this function.
    pub fn shared(parameters: OutboundParameters, key: ExpandedKeymat, memory: M) -> Self {
        Self { is_shared: true, ..Self::new(parameters, key, memory) }
    }

    /// The peer's SPI.
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// Sequence number and counters.
    pub fn live(&self) -> &OutboundLive {
        self.memory.live()
    }

    /// Seals the payload data `inner` of `buffer` in place; needs [`HEAD_LEN`] octets before it and up to
    /// [`crate::MAX_TAIL_LEN`] behind it, and overwrites them. `now_ns` is the caller's monotonic clock.
    ///
    /// An empty `inner` with [`NextHeader::DUMMY`] makes a dummy packet (RFC 4303 section 2.6).
    ///
    /// # Errors
    /// See [`SealError`]; the buffer is then unchanged and no sequence number was used.
    #[inline]
    pub fn seal(
        &mut self,
        buffer: &mut [u8],
        inner: Range<usize>,
        next_header: NextHeader,
        now_ns: u64,
    ) -> Result<Sealed, SealError> {
        self.seal_padded(buffer, inner, next_header, 0, now_ns)
    }

    /// Seals like [`Self::seal`], with zeros for traffic flow confidentiality behind `inner` until the payload
    /// data has `padded_len` octets (RFC 4303 section 2.7). Only for tunnel mode, where the length of the
    /// inner packet tells the receiver where they start.
    ///
    /// # Errors
    /// See [`SealError`]; the buffer is then unchanged and no sequence number was used.
    #[inline]
    pub fn seal_padded(
        &mut self,
        buffer: &mut [u8],
        inner: Range<usize>,
        next_header: NextHeader,
        padded_len: usize,
        now_ns: u64,
    ) -> Result<Sealed, SealError> {
        self.seal_aligned::<ALIGNMENT>(buffer, inner, next_header, padded_len, now_ns)
    }

    /// Seals like [`Self::seal`] with the least padding that RFC 4303 section 2.4 allows: what ESP echo asks for
    /// (draft-ietf-ipsecme-encrypted-esp-ping section 5.3), and what keeps a reply from being the longer packet.
    ///
    /// # Errors
    /// See [`SealError`]; the buffer is then unchanged and no sequence number was used.
    pub fn seal_least_padded(
        &mut self,
        buffer: &mut [u8],
        inner: Range<usize>,
        next_header: NextHeader,
        now_ns: u64,
    ) -> Result<Sealed, SealError> {
        self.seal_aligned::<LEAST_ALIGNMENT>(buffer, inner, next_header, 0, now_ns)
    }

    #[inline]
    fn seal_aligned<const TO: usize>(
        &mut self,
        buffer: &mut [u8],
        inner: Range<usize>,
        next_header: NextHeader,
        padded_len: usize,
        now_ns: u64,
    ) -> Result<Sealed, SealError> {
        let inner_len = inner.end.checked_sub(inner.start).ok_or(SealError::NoRoom)?;
        let payload_len = inner_len.max(padded_len);
        if payload_len > buffer.len() {
            return Err(SealError::NoRoom);
        }
        let start = inner.start.checked_sub(HEAD_LEN).ok_or(SealError::NoRoom)?;
        let sealed_len =
            if TO == ALIGNMENT { sealed_len(payload_len) } else { least_padded_len(payload_len) };
        let end = start.checked_add(sealed_len).ok_or(SealError::NoRoom)?;
        let packet = start..end;
        let bytes = buffer.get_mut(packet.clone()).ok_or(SealError::NoRoom)?;
        let (head, rest) = bytes.split_first_chunk_mut::<HEAD_LEN>().ok_or(SealError::NoRoom)?;
        let (text, icv) = rest.split_last_chunk_mut::<{ Algorithm::ICV_LEN }>().ok_or(SealError::NoRoom)?;

        let Claim { sequence, packets, octets } = self.claim(inner_len as u64, now_ns)?;
        let aad = aad(self.spi, sequence, self.esn);
        // The IV is the sequence number, which no packet of this key had before (RFC 4106 section 3.1).
        let iv = sequence;
        *head = self::head(self.spi, sequence, iv);
        if TO == ALIGNMENT {
            write_trailer(text, inner_len, payload_len, next_header);
        } else {
            write_least_trailer(text, payload_len, next_header);
        }
        // The only failure of the provider is a text of tens of gigabytes.
        self.key.key.seal(self.key.nonce(iv), aad.bytes(), text, icv).map_err(|_| SealError::NoRoom)?;

        let live = self.memory.live();
        write(&live.last_ns, now_ns);
        let event = self.lifetime.reached(packets, octets, now_ns);
        let event = event.filter(|event| !self.is_shared || live.is_first(*event));
        Ok(Sealed { packet, sequence, event })
    }

    /// Takes the next number for a packet of `len` octets, and counts it. The number is stored before its nonce exists.
    #[inline]
    fn claim(&mut self, len: u64, now_ns: u64) -> Result<Claim, SealError> {
        if self.is_shared {
            return self.claim_among_others(len, now_ns);
        }
        let live = self.memory.live();
        self.lifetime.admit(read(&live.packets), read(&live.bytes), len, now_ns)?;
        // RFC 4303 section 3.3.3: the counter never cycles.
        let sequence = match read(&live.sequence) {
            last if last < last_sequence(self.esn) => last + 1,
            _ => return Err(SealError::SequenceExhausted { first: self.lifetime.expire().first }),
        };
        write(&live.sequence, sequence);
        Ok(Claim { sequence, packets: add(&live.packets, 1), octets: add(&live.bytes, len) })
    }

    #[inline(never)]
    fn claim_among_others(&mut self, len: u64, now_ns: u64) -> Result<Claim, SealError> {
        let live = self.memory.live();
        let first = |expired: Expired| expired.first && live.is_first(LifetimeEvent::Hard);
        let expired =
            |lifetime: &mut LifetimeState| SealError::LifetimeExpired { first: first(lifetime.expire()) };
        let admitted = self.lifetime.admit(read(&live.packets), read(&live.bytes), len, now_ns);
        admitted.map_err(|expired| SealError::LifetimeExpired { first: first(expired) })?;
        let hard = self.lifetime.hard();
        let Some(packets) = claim(&live.packets, 1, hard.packets) else {
            return Err(expired(&mut self.lifetime));
        };
        let Some(octets) = claim(&live.bytes, len, hard.bytes) else {
            give_back(&live.packets, 1);
            return Err(expired(&mut self.lifetime));
        };
        let Some(sequence) = claim(&live.sequence, 1, last_sequence(self.esn)) else {
            give_back(&live.packets, 1);
            give_back(&live.bytes, len);
            return Err(SealError::SequenceExhausted { first: first(self.lifetime.expire()) });
        };
        Ok(Claim { sequence, packets, octets })
    }
}

/// A packet's number, and the totals that include it.
struct Claim {
    sequence: u64,
    packets: u64,
    octets: u64,
}

impl From<Expired> for SealError {
    fn from(expired: Expired) -> Self {
        Self::LifetimeExpired { first: expired.first }
    }
}

impl<M> fmt::Debug for Outbound<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("spi", &self.spi).field("esn", &self.esn).finish_non_exhaustive()
    }
}

/// The last sequence number of an SA (RFC 4303 section 3.3.3).
pub(crate) const fn last_sequence(esn: bool) -> u64 {
    if esn { u64::MAX } else { u32::MAX as u64 }
}

/// What the ICV covers besides the text: SPI and sequence number, all of it with ESN (RFC 4106 section 5,
/// RFC 7634 section 2.1).
pub(crate) struct AssociatedData {
    octets: [u8; 16],
    len: usize,
}

impl AssociatedData {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

// Here and below fields are joined in one integer and stored at once: the provider reads them a moment later
// in wider pieces, and a read of several narrow stores stalls.
#[inline]
pub(crate) fn aad(spi: Spi, sequence: u64, esn: bool) -> AssociatedData {
    let (number, len) =
        if esn { (u128::from(sequence) << 32, 12) } else { (u128::from(sequence as u32) << 64, 8) };
    AssociatedData { octets: (u128::from(spi.0) << 96 | number).to_be_bytes(), len }
}

#[inline]
fn head(spi: Spi, sequence: u64, iv: u64) -> [u8; HEAD_LEN] {
    (u128::from(spi.0) << 96 | u128::from(sequence as u32) << 64 | u128::from(iv)).to_be_bytes()
}
