//! The bare AEAD call of the libraries that could stand behind the seam, AES-256-GCM, batch by batch in turn.

use std::hint::black_box;
use std::time::Instant;

use super::figure::{Better, Figure, Report, median};

const BATCH: usize = 64;
const BATCHES: usize = 1500;
const REPETITIONS: usize = 9;
/// The last is what 1400 octets are padded to.
const SIZES: [usize; 3] = [64, 512, 1408];
const KEY: [u8; 32] = [7; 32];
const ICV: usize = 16;

/// Seals and opens one text.
trait Aead {
    fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; ICV];
    fn open(&self, nonce: [u8; 12], text_and_icv: &mut [u8]) -> bool;
}

pub fn compare(report: &mut Report) {
    let ring = ring_key();
    let others: [(&str, Box<dyn Aead>); 2] = [
        ("aws-lc-rs", Box::new(aws_lc_key())),
        ("graviola", Box::new(Graviola(graviola::aead::AesGcm::new(&KEY)))),
    ];
    for len in SIZES {
        for (name, other) in &others {
            for (what, time) in [("seal", seal as fn(&dyn Aead, &mut [Vec<u8>])), ("open", open)] {
                let (mut runs, mut against_runs) = (Vec::new(), Vec::new());
                for _ in 0..REPETITIONS {
                    let (mut of_other, mut of_ring) = (Vec::new(), Vec::new());
                    for _ in 0..BATCHES {
                        of_other.push(measure(other.as_ref(), len, time));
                        of_ring.push(measure(&ring, len, time));
                    }
                    runs.push(1e9 / median(&of_other));
                    against_runs.push(1e9 / median(&of_ring));
                }
                report.add(Figure {
                    suite: "esp",
                    case: format!("bare {what} of {name}, {len} B"),
                    unit: "packets/s",
                    better: Better::Higher,
                    runs,
                    against: "the same call of ring",
                    against_runs,
                    goal: None,
                });
            }
        }
    }
}

/// Nanoseconds of one call. What is opened was sealed before, outside of the time.
fn measure(aead: &dyn Aead, len: usize, time: fn(&dyn Aead, &mut [Vec<u8>])) -> f64 {
    let mut texts = vec![vec![1; len + ICV]; BATCH];
    for (number, text) in (0u64..).zip(&mut texts) {
        let (text, icv) = text.split_at_mut(len);
        icv.copy_from_slice(&aead.seal(nonce(number), text));
    }
    let start = Instant::now();
    time(aead, &mut texts);
    start.elapsed().as_nanos() as f64 / BATCH as f64
}

fn seal(aead: &dyn Aead, texts: &mut [Vec<u8>]) {
    for (number, text) in (0u64..).zip(texts) {
        let len = text.len() - ICV;
        black_box(aead.seal(nonce(number), &mut text[..len]));
    }
}

fn open(aead: &dyn Aead, texts: &mut [Vec<u8>]) {
    for (number, text) in (0u64..).zip(texts) {
        assert!(black_box(aead.open(nonce(number), text)));
    }
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

macro_rules! like_ring {
    ($make:ident, $library:ident) => {
        fn $make() -> $library::aead::LessSafeKey {
            let key = $library::aead::UnboundKey::new(&$library::aead::AES_256_GCM, &KEY);
            $library::aead::LessSafeKey::new(key.expect("a key of the right length"))
        }

        impl Aead for $library::aead::LessSafeKey {
            fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; ICV] {
                use $library::aead::{Aad, Nonce};
                let aad = Aad::from([1; 12]);
                let tag = self.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, text);
                tag.expect("a short text").as_ref().try_into().expect("16 octets")
            }

            fn open(&self, nonce: [u8; 12], text_and_icv: &mut [u8]) -> bool {
                use $library::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                self.open_in_place(nonce, Aad::from([1; 12]), text_and_icv).is_ok()
            }
        }
    };
}

like_ring!(ring_key, ring);
like_ring!(aws_lc_key, aws_lc_rs);

struct Graviola(graviola::aead::AesGcm);

impl Aead for Graviola {
    fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; ICV] {
        let mut icv = [0; ICV];
        self.0.encrypt(&nonce, &[1; 12], text, &mut icv);
        icv
    }

    fn open(&self, nonce: [u8; 12], text_and_icv: &mut [u8]) -> bool {
        let (text, icv) = text_and_icv.split_at_mut(text_and_icv.len() - ICV);
        self.0.decrypt(&nonce, &[1; 12], text, icv).is_ok()
    }
}
