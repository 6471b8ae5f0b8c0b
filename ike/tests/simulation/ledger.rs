//! What the two ends of every SA say about its keys, whether or not anything is ever sent under them: they agree, in each
//! direction, from the moment that both have them.

use std::collections::BTreeMap;

use portcullis_ike::action::{ChildSaCommon, EspCipher, InboundChildSa, OutboundChildSa};
use portcullis_ike::codec::TrafficSelector;
use portcullis_ike::event::KeyEvent;
use ring::digest::{SHA256, digest};

/// See the module.
#[derive(Default)]
pub struct Ledger {
    /// Somebody changes messages or adds some: what is not authenticated yet may differ.
    pub is_disturbed: bool,
    ike: BTreeMap<IkeKeysName, BTreeMap<usize, IkeKeys>>,
    /// By SPI, which no two nodes share: its inbound half, at the node that gave it out, and the outbound half elsewhere.
    esp: BTreeMap<u32, [Option<Half>; 2]>,
    /// Halves that were compared with each other.
    pub agreed: u64,
}

/// SPIs, and which of the key sets of these SPIs.
pub type IkeKeysName = ((u64, u64), u32);

/// SK_ei and SK_er, each with its salt.
#[derive(Clone, PartialEq, Eq)]
pub struct IkeKeys {
    pub sk_ei: Vec<u8>,
    pub sk_er: Vec<u8>,
}

/// One half of an ESP SA: all that both ends have to agree on.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Half {
    key: Vec<u8>,
    cipher: EspCipher,
    esn: bool,
    sender_ts: Vec<TrafficSelector>,
    receiver_ts: Vec<TrafficSelector>,
}

impl Ledger {
    /// A node has keys of an IKE SA.
    pub fn ike(&mut self, node: usize, keys: KeyEvent) {
        let KeyEvent::Ike { spis, generation, sk_ei, sk_er, .. } = keys else { return };
        let keys = IkeKeys { sk_ei: sk_ei.to_vec(), sk_er: sk_er.to_vec() };
        let known = self.ike.entry((spis, generation)).or_default();
        let others: Vec<_> = known.iter().filter(|(other, _)| **other != node).collect();
        if !self.is_disturbed {
            let agree = others.iter().all(|(_, theirs)| **theirs == keys);
            assert!(agree, "node {node} and its peer have different keys {generation} of {spis:x?}");
            self.agreed += others.len() as u64;
        }
        known.insert(node, keys);
    }

    /// The keys of an IKE SA, the newest first.
    pub fn keys(&self, spis: (u64, u64)) -> impl Iterator<Item = &IkeKeys> {
        let sets = self.ike.range((spis, 0)..=(spis, u32::MAX)).rev();
        sets.flat_map(|(_, by_node)| by_node.values())
    }

    /// Both ends have said what the keys of this IKE SA are.
    pub fn is_shared(&self, spis: (u64, u64)) -> bool {
        let last = self.ike.range((spis, 0)..=(spis, u32::MAX)).next_back();
        self.is_disturbed || last.is_some_and(|(_, by_node)| by_node.len() == 2)
    }

    /// A node has an inbound SA.
    pub fn inbound(&mut self, sa: &InboundChildSa) {
        let half = half(&sa.common, &sa.common.remote_ts, &sa.common.local_ts);
        self.half(sa.spi, 0, half);
    }

    /// A node has an outbound SA.
    pub fn outbound(&mut self, sa: &OutboundChildSa) {
        let half = half(&sa.common, &sa.common.local_ts, &sa.common.remote_ts);
        self.half(sa.spi, 1, half);
    }

    fn half(&mut self, spi: u32, direction: usize, half: Half) {
        let halves = self.esp.entry(spi).or_default();
        if let Some(other) = halves[1 - direction].as_ref().filter(|_| !self.is_disturbed) {
            assert_eq!(half, *other, "the two ends of SPI {spi:x} differ");
            self.agreed += 1;
        }
        let twice = halves[direction].replace(half);
        assert!(twice.is_none(), "SPI {spi:x} is installed twice");
    }
}

fn half(common: &ChildSaCommon, sender: &[TrafficSelector], receiver: &[TrafficSelector]) -> Half {
    Half {
        key: digest(&SHA256, &common.key).as_ref().to_vec(),
        cipher: common.cipher,
        esn: common.esn,
        sender_ts: sender.to_vec(),
        receiver_ts: receiver.to_vec(),
    }
}
