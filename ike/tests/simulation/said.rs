//! What nodes have said under protection, and how to make them say something else.

use portcullis_ike::codec::{
    ExchangeType, Header, NotifyType, Payload, PayloadType, decode_chain, without_non_esp_marker,
};

use crate::created;
use crate::world::World;

/// One protected message that left over UDP, unless it was a fragment.
#[derive(Debug)]
pub struct Said {
    pub node: usize,
    pub header: Header,
    pub payloads: Vec<PayloadType>,
    pub notifies: Vec<(NotifyType, Vec<u8>)>,
}

impl Said {
    /// It has this notification.
    pub fn has(&self, kind: NotifyType) -> bool {
        self.notifies.iter().any(|(known, _)| *known == kind)
    }

    /// It is this node's request, or response, of this exchange.
    pub fn is(&self, node: usize, exchange: ExchangeType, response: bool) -> bool {
        self.node == node && self.header.exchange == exchange && self.header.flags.response == response
    }
}

/// Everything since `sent_datagrams` was emptied. Messages of a type that decodes to nothing are left out.
pub fn said(world: &World) -> Vec<Said> {
    let datagrams = world.sent_datagrams.iter().flatten();
    let messages =
        datagrams.filter_map(|(node, _, datagram)| Some((*node, without_non_esp_marker(datagram)?)));
    let opened = messages.filter_map(|(node, raw)| {
        let (header, first, content) = created::content(raw, &world.ledger)?;
        let payloads = decode_chain(first, &content).ok()?;
        let notifies = payloads.iter().filter_map(Payload::as_notify);
        let notifies = notifies.map(|notify| (notify.notify_type, notify.data.to_vec())).collect();
        Some(Said { node, header, payloads: payloads.iter().map(Payload::payload_type).collect(), notifies })
    });
    opened.collect()
}

/// A payload before all others.
pub fn preceded(
    (first, content): (PayloadType, Vec<u8>),
    kind: u8,
    is_critical: bool,
    body: &[u8],
) -> (PayloadType, Vec<u8>) {
    let length = u16::try_from(4 + body.len()).unwrap().to_be_bytes();
    let header = [first.0, u8::from(is_critical) << 7, length[0], length[1]];
    (PayloadType(kind), [&header, body, &content].concat())
}

/// A notification before all other payloads.
pub fn notified(chain: (PayloadType, Vec<u8>), kind: NotifyType, data: &[u8]) -> (PayloadType, Vec<u8>) {
    let [high, low] = kind.0.to_be_bytes();
    preceded(chain, PayloadType::NOTIFY.0, false, &[&[0, 0, high, low], data].concat())
}

/// The message of this node, exchange and direction.
pub fn is(message: &[u8], exchange: ExchangeType, response: bool) -> bool {
    Header::decode(message)
        .is_ok_and(|(header, _)| header.exchange == exchange && header.flags.response == response)
}
