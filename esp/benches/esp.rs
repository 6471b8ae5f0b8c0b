//! ESP seal and open in memory against the bare AEAD call of the same provider: `cargo bench -p portcullis-esp`.
//!
//! Both work in the same run, batch by batch in turn, on the same pool of packets, so that neither clock
//! frequency nor neighbours favour one. A repetition is the median of its batches. The bare call encrypts or
//! decrypts just the payload; ESP adds header, trailer, sequence number, window, counters and lifetimes.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "../../xtask/src/bench/figure.rs"]
mod figure;
#[path = "esp/providers.rs"]
mod providers;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use figure::{Better, Figure, Report, median};
use portcullis_common::Spi;
use portcullis_esp::{
    Algorithm, ExpandedKeymat, HEAD_LEN, Inbound, InboundLive, InboundParameters, KeyMaterial, Lifetime,
    MAX_TAIL_LEN, NextHeader, Outbound, OutboundLive, OutboundParameters, WindowSize, sealed_len,
};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

/// Packets of a batch, as a worker takes them from a ring.
const BATCH: usize = 64;
const BATCHES: usize = 1500;
const REPETITIONS: usize = 9;
/// Payload octets and the least share of the bare call's speed.
const SIZES: [(usize, f64); 2] = [(64, 0.65), (1400, 0.88)];
/// Payload octets, nanoseconds that the ESP encrypt node of VPP 26.10 took on this kind of machine for a packet, and how many times that is
/// aimed at.
const VPP: [(usize, f64, f64); 3] = [(64, 58.0, 1.6), (512, 140.0, 1.0), (1400, 307.0, 1.0)];
const SPI: Spi = Spi(0x0010_0000);

fn main() -> ExitCode {
    let mut report = Report::begin();
    for algorithm in [Algorithm::Aes256Gcm16, Algorithm::Aes128Gcm16, Algorithm::ChaCha20Poly1305] {
        for (len, goal) in SIZES {
            report.add(figure("seal", algorithm, len, goal, measure(|| Sealing::new(algorithm, len))));
            report.add(figure("open", algorithm, len, goal, measure(|| Opening::new(algorithm, len))));
        }
    }
    for (len, nanoseconds, goal) in VPP {
        let measured = measure(|| Sealing::new(Algorithm::Aes256Gcm16, len));
        report.add(Figure {
            suite: "esp",
            case: format!("seal {:?} {len} B, time", Algorithm::Aes256Gcm16),
            unit: "ns/packet",
            better: Better::Lower,
            runs: measured.esp.iter().map(|a_second| 1e9 / a_second).collect(),
            against: "VPP 26.10, ESP encrypt node, on record",
            against_runs: vec![nanoseconds],
            goal: Some(goal),
        });
    }
    providers::compare(&mut report);
    report.finish()
}

/// Two ways to do one thing to a batch; `prepare` is not timed.
trait Contest {
    fn prepare_esp(&mut self);
    fn esp(&mut self);
    fn prepare_bare(&mut self);
    fn bare(&mut self);
}

/// Packets in a second, one value for each repetition.
struct Measured {
    esp: Vec<f64>,
    bare: Vec<f64>,
}

fn measure<C: Contest>(contest: impl Fn() -> C) -> Measured {
    let mut measured = Measured { esp: Vec::new(), bare: Vec::new() };
    for _ in 0..REPETITIONS {
        let mut contest = contest();
        let (mut esp, mut bare) = (Vec::with_capacity(BATCHES), Vec::with_capacity(BATCHES));
        for _ in 0..BATCHES {
            contest.prepare_esp();
            let start = Instant::now();
            contest.esp();
            esp.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
            contest.prepare_bare();
            let start = Instant::now();
            contest.bare();
            bare.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
        }
        measured.esp.push(1e9 / median(&esp));
        measured.bare.push(1e9 / median(&bare));
    }
    measured
}

fn figure(what: &str, algorithm: Algorithm, len: usize, goal: f64, measured: Measured) -> Figure {
    Figure {
        suite: "esp",
        case: format!("{what} {algorithm:?} {len} B"),
        unit: "packets/s",
        better: Better::Higher,
        runs: measured.esp,
        against: "bare AEAD call of ring",
        against_runs: measured.bare,
        goal: Some(goal),
    }
}

struct Sealing {
    sa: Outbound<Arc<OutboundLive>>,
    key: LessSafeKey,
    number: u64,
    len: usize,
    buffers: Vec<Vec<u8>>,
}

impl Sealing {
    fn new(algorithm: Algorithm, len: usize) -> Self {
        let sa = outbound(algorithm);
        let buffers = vec![vec![0; HEAD_LEN + len + MAX_TAIL_LEN]; BATCH];
        Self { sa, key: bare_key(algorithm), number: 0, len, buffers }
    }
}

impl Contest for Sealing {
    fn prepare_esp(&mut self) {}

    fn esp(&mut self) {
        for buffer in &mut self.buffers {
            let sealed = self.sa.seal(buffer, HEAD_LEN..HEAD_LEN + self.len, NextHeader::IPV4, 1);
            black_box(sealed.is_ok());
        }
    }

    fn prepare_bare(&mut self) {}

    fn bare(&mut self) {
        for buffer in &mut self.buffers {
            self.number += 1;
            let tag = bare_seal(&self.key, self.number, &mut buffer[HEAD_LEN..HEAD_LEN + self.len]);
            let _ = black_box(tag);
        }
    }
}

struct Opening {
    outbound: Outbound<Arc<OutboundLive>>,
    inbound: Inbound<Arc<(InboundLive, Vec<AtomicU64>)>>,
    key: LessSafeKey,
    len: usize,
    buffers: Vec<Vec<u8>>,
}

impl Opening {
    fn new(algorithm: Algorithm, len: usize) -> Self {
        let bits = (0..WindowSize::DEFAULT.words()).map(|_| AtomicU64::new(0)).collect();
        let parameters = InboundParameters { spi: SPI, esn: true, lifetime: Lifetime::default() };
        let memory = Arc::new((InboundLive::default(), bits));
        Self {
            outbound: outbound(algorithm),
            inbound: Inbound::new(parameters, keymat(algorithm), memory)
                .expect("a window of the default size"),
            key: bare_key(algorithm),
            len,
            buffers: vec![vec![0; HEAD_LEN + len + MAX_TAIL_LEN]; BATCH],
        }
    }
}

impl Contest for Opening {
    fn prepare_esp(&mut self) {
        for buffer in &mut self.buffers {
            let inner = HEAD_LEN..HEAD_LEN + self.len;
            self.outbound.seal(buffer, inner, NextHeader::IPV4, 1).expect("room for the packet");
        }
    }

    fn esp(&mut self) {
        for buffer in &mut self.buffers {
            let opened = self.inbound.open(buffer, 0..sealed_len(self.len), 1);
            assert!(black_box(opened).is_ok());
        }
    }

    fn prepare_bare(&mut self) {
        for (number, buffer) in (0..).zip(&mut self.buffers) {
            let (text, icv) = buffer[HEAD_LEN..].split_at_mut(self.len);
            icv[..Algorithm::ICV_LEN].copy_from_slice(bare_seal(&self.key, number, text).as_ref());
        }
    }

    fn bare(&mut self) {
        for (number, buffer) in (0..).zip(&mut self.buffers) {
            let text = &mut buffer[HEAD_LEN..HEAD_LEN + self.len + Algorithm::ICV_LEN];
            let opened = self.key.open_in_place(nonce(number), Aad::from(associated_data(number)), text);
            assert!(black_box(opened).is_ok());
        }
    }
}

fn outbound(algorithm: Algorithm) -> Outbound<Arc<OutboundLive>> {
    let parameters = OutboundParameters { spi: SPI, esn: true, lifetime: Lifetime::default() };
    Outbound::new(parameters, keymat(algorithm), Arc::default())
}

fn keymat(algorithm: Algorithm) -> ExpandedKeymat {
    let material = KeyMaterial::from_keymat(algorithm, &[7; 36][..algorithm.keymat_len()]);
    material.and_then(|material| ExpandedKeymat::new(&material)).expect("key material of the right length")
}

fn bare_key(algorithm: Algorithm) -> LessSafeKey {
    let aead = match algorithm {
        Algorithm::Aes128Gcm16 => &AES_128_GCM,
        Algorithm::Aes256Gcm16 => &AES_256_GCM,
        Algorithm::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    LessSafeKey::new(
        UnboundKey::new(aead, &[7; 32][..algorithm.key_len()]).expect("a key of the right length"),
    )
}

fn bare_seal(key: &LessSafeKey, number: u64, text: &mut [u8]) -> Tag {
    let aad = Aad::from(associated_data(number));
    key.seal_in_place_separate_tag(nonce(number), aad, text).expect("a short text")
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn associated_data(number: u64) -> [u8; 12] {
    let mut aad = [1; 12];
    aad[4..].copy_from_slice(&number.to_be_bytes());
    aad
}
