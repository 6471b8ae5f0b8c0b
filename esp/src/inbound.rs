//! Opening: the receiving side of an SA (RFC 4303 section 3.4).

use core::fmt;
use core::ops::Range;
use std::sync::atomic::AtomicU64;

use portcullis_common::Spi;

use crate::InboundLive;
use crate::error::OpenError;
use crate::header::{HEAD_LEN, MIN_PACKET_LEN, NextHeader};
use crate::key::ExpandedKeymat;
use crate::lifetime::{Expired, Lifetime, LifetimeEvent, LifetimeState};
use crate::live::{InboundMemory, add, read, write};
use crate::outbound::aad;
use crate::replay::{InvalidWindow, ReplayWindow, WindowSize};
use crate::sequence;
use crate::trailer::read_trailer;

/// Without a replay window the high-order bits of ESN are those nearest to the highest number seen.
const NO_WINDOW_REACH: u64 = 1 << 31;

/// What an inbound SA is made of, besides its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InboundParameters {
    /// Our SPI.
    pub spi: Spi,
    /// Extended sequence numbers.
    pub esn: bool,
    /// When to rekey and when to stop.
    pub lifetime: Lifetime,
}

/// An inbound SA. Its owner alone opens with it.
pub struct Inbound<M> {
    spi: Spi,
    esn: bool,
    key: ExpandedKeymat,
    lifetime: LifetimeState,
    memory: M,
}

/// An opened packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Where the payload data lies in the buffer, TFC padding included.
    pub inner: Range<usize>,
    /// What the payload data is.
    pub next_header: NextHeader,
    /// The sequence number, all 64 bits with ESN.
    pub sequence: u64,
    /// Numbered above every packet authenticated on this SA before.
    pub is_highest: bool,
    /// A lifetime that it reached.
    pub event: Option<LifetimeEvent>,
}

impl Opened {
    /// A dummy packet, to be dropped in silence (RFC 4303 section 2.6).
    pub fn is_dummy(&self) -> bool {
        self.next_header == NextHeader::DUMMY
    }
}

impl<M: InboundMemory> Inbound<M> {
    /// An SA that goes on where `memory` stands. The caller answers for it that no other SA uses `memory`.
    ///
    /// # Errors
    /// [`InvalidWindow`] if the window's memory has neither the size of a [`WindowSize`] nor none (replay
    /// protection off).
    pub fn new(parameters: InboundParameters, key: ExpandedKeymat, memory: M) -> Result<Self, InvalidWindow> {
        let words = memory.window().len();
        if words != 0 {
            let packets = words.checked_mul(64).and_then(|n| n.try_into().ok()).ok_or(InvalidWindow)?;
            if WindowSize::new(packets)?.words() != words {
                return Err(InvalidWindow);
            }
        }
        let InboundParameters { spi, esn, lifetime } = parameters;
        Ok(Self { spi, esn, key, lifetime: LifetimeState::new(lifetime), memory })
    }

    /// Our SPI.
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// Sequence number and counters.
    pub fn live(&self) -> &InboundLive {
        self.memory.live()
    }

    /// The word of the replay window that a packet's Sequence Number field leads to, if there is a window: for who asks the
    /// cache for it before the packet is opened.
    #[inline]
    pub fn window_word(&self, sequence: u32) -> Option<&AtomicU64> {
        let words = self.memory.window();
        words.get((sequence >> 6) as usize & words.len().wrapping_sub(1))
    }

    /// Opens the ESP packet `packet` of `buffer` in place. `now_ns` is the caller's monotonic clock.
    ///
    /// # Errors
    /// See [`OpenError`]; the packet must be dropped, its bytes may be garbage.
    #[inline]
    pub fn open(
        &mut self,
        buffer: &mut [u8],
        packet: Range<usize>,
        now_ns: u64,
    ) -> Result<Opened, OpenError> {
        let start = packet.start;
        let result = match buffer.get_mut(packet) {
            Some(bytes) => self.open_packet(bytes, start, now_ns),
            None => Err(OpenError::TooShort),
        };
        if let Err(error) = &result {
            self.count(*error);
        }
        result
    }

    #[inline]
    fn open_packet(&mut self, packet: &mut [u8], start: usize, now_ns: u64) -> Result<Opened, OpenError> {
        if packet.len() < MIN_PACKET_LEN {
            return Err(OpenError::TooShort);
        }
        let (head, text) = packet.split_first_chunk_mut::<HEAD_LEN>().ok_or(OpenError::TooShort)?;
        let head = u128::from_be_bytes(*head);
        let (spi, low, iv) = (Spi((head >> 96) as u32), (head >> 64) as u32, head as u64);
        if spi != self.spi {
            return Err(OpenError::WrongSpi);
        }
        let live = self.memory.live();
        let (packets, octets) = (read(&live.packets), read(&live.bytes));
        self.lifetime.admit(packets, octets, 0, now_ns)?;

        let bits = self.memory.window();
        let window = (!bits.is_empty()).then(|| ReplayWindow::new(bits, read(&live.highest)));
        let highest = read(&live.highest);
        let sequence = if self.esn {
            let reach = if bits.is_empty() { NO_WINDOW_REACH } else { bits.len() as u64 * 64 };
            sequence::infer(low, highest, reach).ok_or(OpenError::Replay)?
        } else {
            u64::from(low)
        };
        if window.is_some_and(|window| !window.admits(sequence)) {
            return Err(OpenError::Replay);
        }

        let aad = aad(self.spi, sequence, self.esn);
        self.key.key.open(self.key.nonce(iv), aad.bytes(), text).map_err(|_| OpenError::IcvFailure)?;

        // RFC 4303 section 3.4.3: the window is updated only after the ICV has been verified.
        if let Some(window) = window {
            window.mark(sequence);
        }
        let is_highest = sequence > highest;
        if is_highest {
            write(&live.highest, sequence);
        }

        let (payload_len, next_header) = read_trailer(text).ok_or(OpenError::BadPadding)?;
        self.lifetime.admit(packets, octets, payload_len as u64, now_ns)?;
        let packets = add(&live.packets, 1);
        let octets = add(&live.bytes, payload_len as u64);
        write(&live.last_ns, now_ns);
        let event = self.lifetime.reached(packets, octets, now_ns);
        let inner = start + HEAD_LEN;
        Ok(Opened { inner: inner..inner + payload_len, next_header, sequence, is_highest, event })
    }

    #[cold]
    fn count(&self, error: OpenError) {
        let live = self.memory.live();
        let counter = match error {
            OpenError::Replay => &live.replays,
            OpenError::IcvFailure => &live.icv_failures,
            OpenError::TooShort | OpenError::BadPadding => &live.malformed,
            OpenError::WrongSpi | OpenError::LifetimeExpired { .. } => return,
        };
        add(counter, 1);
    }
}

impl From<Expired> for OpenError {
    fn from(expired: Expired) -> Self {
        Self::LifetimeExpired { first: expired.first }
    }
}

impl<M> fmt::Debug for Inbound<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("spi", &self.spi).field("esn", &self.esn).finish_non_exhaustive()
    }
}
