//! Tests of whole SAs: published vectors, both directions together, ESN, lifetimes, hostile bytes.

mod echo;
mod esn;
mod hostile;
mod lifetimes;
mod round_trip;
mod shared;
mod vectors;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use portcullis_common::Spi;

use crate::live::write;
use crate::*;

type TestOutbound = Outbound<Arc<OutboundLive>>;
type TestInbound = Inbound<Arc<(InboundLive, Vec<AtomicU64>)>>;

const SPI: Spi = Spi(0xc0de_0001);

/// Both directions of an SA with one key, and what may differ between tests.
struct Setup {
    algorithm: Algorithm,
    esn: bool,
    lifetime: Lifetime,
    /// Sequence number that both directions go on from.
    sequence: u64,
    window: Option<u32>,
}

impl Default for Setup {
    fn default() -> Self {
        let (algorithm, lifetime) = (Algorithm::Aes256Gcm16, Lifetime::default());
        Self { algorithm, esn: true, lifetime, sequence: 0, window: Some(4096) }
    }
}

impl Setup {
    fn outbound(&self) -> TestOutbound {
        let live = Arc::new(OutboundLive::default());
        write(&live.sequence, self.sequence);
        let parameters = OutboundParameters { spi: SPI, esn: self.esn, lifetime: self.lifetime };
        Outbound::new(parameters, keymat(self.algorithm), live)
    }

    fn inbound(&self) -> TestInbound {
        let words = self.window.map_or(0, |packets| WindowSize::new(packets).unwrap().words());
        let memory = (InboundLive::default(), (0..words).map(|_| AtomicU64::new(0)).collect());
        write(&memory.0.highest, self.sequence);
        let parameters = InboundParameters { spi: SPI, esn: self.esn, lifetime: self.lifetime };
        Inbound::new(parameters, keymat(self.algorithm), Arc::new(memory)).unwrap()
    }
}

fn keymat(algorithm: Algorithm) -> ExpandedKeymat {
    let octets: Vec<u8> = (0..algorithm.keymat_len() as u8).collect();
    ExpandedKeymat::new(&KeyMaterial::from_keymat(algorithm, &octets).unwrap()).unwrap()
}

/// Seals `payload` in a buffer that fits it exactly, and returns the ESP packet.
fn seal(sa: &mut TestOutbound, payload: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut buffer = vec![0xee; HEAD_LEN + payload.len() + MAX_TAIL_LEN];
    let inner = HEAD_LEN..HEAD_LEN + payload.len();
    buffer[inner.clone()].copy_from_slice(payload);
    let sealed = sa.seal(&mut buffer, inner, NextHeader::IPV4, 0)?;
    Ok(buffer[sealed.packet].to_vec())
}

/// Opens a copy of `packet` and returns what it says with the payload data.
fn open(sa: &mut TestInbound, packet: &[u8]) -> Result<(Opened, Vec<u8>), OpenError> {
    let mut buffer = packet.to_vec();
    let opened = sa.open(&mut buffer, 0..packet.len(), 0)?;
    let payload = buffer[opened.inner.clone()].to_vec();
    Ok((opened, payload))
}
