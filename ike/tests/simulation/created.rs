//! Reads CREATE_CHILD_SA exchanges on the wire, with the keys that the ends say they have and an AES-256-GCM of its own: who
//! asked for what, the SPIs, the nonces. What decides a collision is seen from outside.

use std::collections::BTreeMap;

use portcullis_ike::codec::{
    CipherLayout, Encrypted, ExchangeType, Header, Message, Payload, PayloadType, Protected, ProtocolId,
    SealParts, decode_chain,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::ledger::Ledger;

/// What CREATE_CHILD_SA exchanges have agreed on so far.
#[derive(Default)]
pub struct CreatedSas {
    requests: BTreeMap<(usize, u32, (u64, u64)), Half>,
    done: Vec<Created>,
}

/// One exchange that was agreed to.
#[derive(Clone, Debug)]
pub struct Created {
    /// The node that asked for it.
    pub by: usize,
    /// IKE or ESP.
    pub protocol: ProtocolId,
    /// SPI of the initiator and of the responder of the exchange.
    pub spis: (u64, u64),
    /// The lower one of its two nonces.
    pub lowest_nonce: Vec<u8>,
}

/// What one message of an exchange says.
struct Half {
    protocol: ProtocolId,
    spi: u64,
    nonce: Vec<u8>,
}

const LAYOUT: CipherLayout = CipherLayout { iv_len: 8, icv_len: 16 };

impl CreatedSas {
    /// A node sends this message.
    pub fn sent(&mut self, node: usize, raw: &[u8], ledger: &Ledger) {
        let Ok(message) = Message::decode(raw) else { return };
        let header = message.header;
        if header.exchange != ExchangeType::CREATE_CHILD_SA {
            return;
        }
        let half = open(&message, &header, ledger);
        let spis = (header.spi_i, header.spi_r);
        match (header.flags.response, half) {
            (false, Some(half)) => {
                self.requests.insert((node, header.message_id, spis), half);
            }
            (false, None) => {}
            (true, half) => {
                let asked = self.requests.remove(&(1 - node, header.message_id, spis));
                let (Some(asked), Some(answered)) = (asked, half) else { return };
                self.done.push(Created {
                    by: 1 - node,
                    protocol: asked.protocol,
                    spis: (asked.spi, answered.spi),
                    lowest_nonce: asked.nonce.min(answered.nonce),
                });
            }
        }
    }

    /// Exchanges since the last call.
    pub fn take(&mut self) -> Vec<Created> {
        core::mem::take(&mut self.done)
    }
}

/// The payloads of a protected message that is no fragment: the first type and their octets.
pub fn content(raw: &[u8], ledger: &Ledger) -> Option<(Header, PayloadType, Vec<u8>)> {
    let message = Message::decode(raw).ok()?;
    let header = message.header;
    let encrypted = message.encrypted.as_ref().filter(|encrypted| encrypted.fragment.is_none())?;
    let mut keys = ledger.keys((header.spi_i, header.spi_r));
    let content = keys.find_map(|keys| {
        let key = if header.flags.initiator { &keys.sk_ei } else { &keys.sk_er };
        decrypt(encrypted, key)
    });
    Some((header, encrypted.first_inner, content?))
}

/// The same message of a peer that says something else under its protection. Its Initialization Vector is one that no end uses.
pub fn rewritten(
    raw: &[u8],
    ledger: &Ledger,
    content: impl FnOnce(PayloadType, Vec<u8>) -> (PayloadType, Vec<u8>),
) -> Vec<u8> {
    let exchange = Message::decode(raw).unwrap().header.exchange;
    rewritten_as(exchange, raw, ledger, content)
}

/// The same, in another exchange.
pub fn rewritten_as(
    exchange: ExchangeType,
    raw: &[u8],
    ledger: &Ledger,
    content: impl FnOnce(PayloadType, Vec<u8>) -> (PayloadType, Vec<u8>),
) -> Vec<u8> {
    let message = Message::decode(raw).unwrap();
    let header = Header { exchange, ..message.header };
    let encrypted = message.encrypted.as_ref().unwrap();
    let keys = ledger.keys((header.spi_i, header.spi_r)).next().expect("both ends log their keys");
    let key_and_salt = if header.flags.initiator { &keys.sk_ei } else { &keys.sk_er };
    let (first, content) = content(encrypted.first_inner, decrypt(encrypted, key_and_salt).unwrap());
    let (key, salt) = key_and_salt.split_at(32);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let iv = (u64::MAX - u64::from(header.message_id)).to_be_bytes();
    let nonce: [u8; 12] = [salt, &iv].concat().try_into().unwrap();
    let seal = |parts: SealParts<'_>| {
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(parts.associated_data));
        let tag = key.seal_in_place_separate_tag(nonce, aad, parts.text).ok()?;
        parts.iv.copy_from_slice(&iv);
        parts.icv.copy_from_slice(tag.as_ref());
        Some(())
    };
    Protected::whole(&header, first).seal(&content, LAYOUT, seal).unwrap()
}

/// `None` if the message agrees to nothing.
fn open(message: &Message<'_>, header: &Header, ledger: &Ledger) -> Option<Half> {
    let encrypted = message.encrypted.as_ref().filter(|encrypted| encrypted.fragment.is_none())?;
    let keys = ledger.keys((header.spi_i, header.spi_r)).next().expect("both ends log their keys");
    let key = if header.flags.initiator { &keys.sk_ei } else { &keys.sk_er };
    let content = decrypt(encrypted, key).expect("what an end sends is under the keys that it logs");
    let payloads = decode_chain(encrypted.first_inner, &content).expect("what is sent is well-formed");
    let (mut spi, mut nonce) = (None, None);
    for payload in &payloads {
        match payload {
            Payload::Sa(sa) => {
                let proposal = sa.proposals.first()?;
                let number = proposal.spi.child().map(u64::from).or(proposal.spi.ike())?;
                spi = Some((proposal.protocol, number));
            }
            Payload::Nonce(value) => nonce = Some(value.0.to_vec()),
            _ => {}
        }
    }
    let (protocol, spi) = spi?;
    Some(Half { protocol, spi, nonce: nonce? })
}

/// RFC 5282 section 3: a salt of four octets behind the key, an explicit IV of eight.
fn decrypt(encrypted: &Encrypted<'_>, key_and_salt: &[u8]) -> Option<Vec<u8>> {
    let (iv, sealed) = encrypted.split(LAYOUT).ok()?;
    let (key, salt) = key_and_salt.split_at_checked(32)?;
    let nonce: [u8; 12] = [salt, iv].concat().try_into().ok()?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
    let mut text = sealed.to_vec();
    let aad = Aad::from(encrypted.associated_data);
    let text = key.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut text).ok()?;
    Encrypted::content(text).ok().map(<[u8]>::to_vec)
}
