//! ESP packets of an SA whose key is known, with whatever number, text and trailer (RFC 4303 section 2, RFC 4106).

use portcullis_common::Spi;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

pub const IPV4: u8 = 4;
pub const IPV6: u8 = 41;

pub struct Forge {
    key: LessSafeKey,
    salt: [u8; 4],
    spi: Spi,
    /// The Sequence Number of the next packet.
    pub sequence: u64,
}

impl Forge {
    /// For an SA with ESN: 32 octets of key and four of salt.
    pub fn new(keymat: &[u8], spi: Spi) -> Self {
        let (key, salt) = keymat.split_at(32);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        Self { key, salt: salt.try_into().unwrap(), spi, sequence: 1000 }
    }

    /// A sound packet.
    pub fn packet(&mut self, inner: &[u8], next_header: u8) -> Vec<u8> {
        let pad_len = (inner.len() + 2).next_multiple_of(4) - inner.len() - 2;
        let padding: Vec<u8> = (1..=pad_len as u8).collect();
        self.text(&[inner, &padding, &[pad_len as u8, next_header]].concat())
    }

    /// A packet with this text, the trailer included.
    pub fn text(&mut self, text: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        self.numbered(self.sequence - 1, text)
    }

    /// A packet with this number and text.
    pub fn numbered(&self, sequence: u64, text: &[u8]) -> Vec<u8> {
        let iv = sequence.to_be_bytes();
        let nonce = Nonce::try_assume_unique_for_key(&[&self.salt[..], &iv].concat()).unwrap();
        let spi = self.spi.0.to_be_bytes();
        let mut text = text.to_vec();
        let aad = Aad::from([&spi[..], &sequence.to_be_bytes()].concat());
        self.key.seal_in_place_append_tag(nonce, aad, &mut text).unwrap();
        [&spi[..], &(sequence as u32).to_be_bytes(), &iv, &text].concat()
    }
}
