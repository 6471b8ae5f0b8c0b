//! Listens to every IKE message and checks what must hold for each of them, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_ike::codec::{
    ExchangeType, Header, Message, NotifyType, Payload, PayloadType, without_non_esp_marker,
};
use portcullis_ike::stream::{Deframer, Frame};

/// See the module.
#[derive(Default)]
pub struct Tap {
    /// What each sender protected under each number.
    protected: BTreeMap<Sent, Vec<u8>>,
    /// Initialization vectors by sender, SPIs and generation of keys.
    vectors: BTreeMap<(Sender, Spis, u32, Vec<u8>), Sent>,
    windows: BTreeMap<(Sender, Spis), Window>,
    /// IKE SAs that have moved to TCP.
    on_tcp: BTreeSet<Spis>,
}

/// A node and how often it was started.
type Sender = (usize, u32);
type Spis = (u64, u64);

/// What names one message, or one fragment, for ever.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Sent {
    sender: Sender,
    spis: Spis,
    is_response: bool,
    message_id: u32,
    fragment: u16,
}

#[derive(Default)]
struct Window {
    requested: Option<u32>,
    answered: Option<u32>,
}

impl Tap {
    /// A UDP payload leaves.
    pub fn datagram_sent<'a>(&mut self, sender: Sender, payload: &'a [u8]) -> Option<&'a [u8]> {
        let message = without_non_esp_marker(payload)?;
        let (header, _) = Header::decode(message).expect("what is sent is well-formed");
        if header.exchange != ExchangeType::IKE_SA_INIT {
            assert!(!self.on_tcp.contains(&spis(&header)), "IKE over UDP after it moved to TCP: {header:?}");
        }
        self.check_sent(sender, message);
        Some(message)
    }

    /// An IKE message leaves on a stream.
    pub fn stream_sent(&mut self, sender: Sender, raw: &[u8]) {
        let message = Message::decode(raw).expect("what is sent is well-formed");
        let has =
            |kind| message.payloads.iter().filter_map(Payload::as_notify).any(|n| n.notify_type == kind);
        let asks_for_cookie = message.header.flags.response && has(NotifyType::COOKIE);
        assert!(!asks_for_cookie || has(NotifyType::PUZZLE), "no COOKIE over TCP without a puzzle");
        let is_fragment = message.encrypted.as_ref().is_some_and(|encrypted| encrypted.fragment.is_some());
        assert!(!is_fragment, "RFC 9329 section 7.2: no fragments over TCP");
        if message.encrypted.is_some() {
            self.on_tcp.insert(spis(&message.header));
        }
        self.check_sent(sender, raw);
    }

    /// A message reaches a node.
    pub fn arrived(&mut self, node: usize, boot: u32, message: &[u8]) {
        let Ok((header, first)) = Header::decode(message) else { return };
        if header.flags.response && matches!(first, PayloadType::SK | PayloadType::SKF) {
            let window = self.windows.entry(((node, boot), spis(&header))).or_default();
            window.answered = window.answered.max(Some(header.message_id));
        }
    }

    /// The Message ID that a node's next request on an IKE SA will have, at its first start.
    pub fn next_request(&self, node: usize, spis: (u64, u64)) -> u32 {
        let last = self.windows.get(&((node, 0), spis)).and_then(|window| window.requested);
        last.map_or(0, |last| last + 1)
    }

    fn check_sent(&mut self, sender: Sender, raw: &[u8]) {
        let message = Message::decode(raw).expect("what is sent is well-formed");
        let Some(encrypted) = message.encrypted else { return };
        let header = message.header;
        let sent = Sent {
            sender,
            spis: spis(&header),
            is_response: header.flags.response,
            message_id: header.message_id,
            fragment: encrypted.fragment.map_or(0, |fragment| fragment.number),
        };
        if let Some(before) = self.protected.get(&sent) {
            assert!(
                before == raw,
                "RFC 7296 section 2.1: a repeated message is bitwise the same: {sent:?} {header:?}"
            );
            return;
        }
        if !sent.is_response && sent.fragment <= 1 {
            self.check_window(&sent);
        }
        // IKE_INTERMEDIATE changes the keys each time (RFC 9370 section 2.2.2).
        let generation =
            if header.exchange == ExchangeType::IKE_INTERMEDIATE { header.message_id } else { u32::MAX };
        let vector = encrypted.body[..8].to_vec();
        let twice = self.vectors.insert((sender, sent.spis, generation, vector), sent.clone());
        assert_eq!(twice, None, "an initialization vector is used twice, the second time by {sent:?}");
        self.protected.insert(sent, raw.to_vec());
    }

    /// RFC 7296 section 2.3: a window of one, and numbers without gaps.
    fn check_window(&mut self, sent: &Sent) {
        let window = self.windows.entry((sent.sender, sent.spis)).or_default();
        if let Some(before) = window.requested {
            assert_eq!(sent.message_id, before + 1, "{sent:?}");
            assert!(window.answered >= Some(before), "a second request is outstanding: {sent:?}");
        }
        window.requested = Some(sent.message_id);
    }
}

/// The two directions' octets of one end of a stream, cut into messages.
pub struct StreamTap {
    sent: Deframer,
    arrived: Deframer,
}

impl StreamTap {
    /// Listens to what the dialling end sends.
    pub fn dialler() -> Self {
        let most = usize::from(u16::MAX);
        Self { sent: Deframer::accepted(most), arrived: Deframer::accepted(most) }
    }

    /// Listens to what the other end sends.
    pub fn acceptor() -> Self {
        Self { sent: Deframer::dialled(), arrived: Deframer::dialled() }
    }

    /// The messages in what is written; each write holds whole ones.
    pub fn sent(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.sent.push(bytes);
        let mut messages = Vec::new();
        while let Some(frame) = self.sent.next_frame().expect("what is sent is well-formed") {
            match frame {
                Frame::Ike(message) => messages.push(message),
                Frame::Esp(_) => {}
            }
        }
        assert_eq!(self.sent.buffered_bytes(), 0, "a part of a message is written");
        messages
    }

    /// The messages that are complete now that these octets have arrived.
    pub fn arrived(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.arrived.push(bytes);
        let mut messages = Vec::new();
        while let Ok(Some(frame)) = self.arrived.next_frame() {
            if let Frame::Ike(message) = frame {
                messages.push(message);
            }
        }
        messages
    }
}

fn spis(header: &Header) -> Spis {
    (header.spi_i, header.spi_r)
}
