//! What IKE_SA_INIT has settled, until AUTH proves it.

use core::net::SocketAddr;

use super::negotiate::IkeChoice;
use super::payloads::{Payload, Received};
use super::ppk::PpkStage;
use crate::codec::NotifyType;
use crate::config::Ppk;
use crate::crypto::auth::{IntAuth, SignedOctets};
use crate::crypto::digest::{constant_time_eq, nat_detection};
use crate::crypto::schedule::{Context, SetupKeys};
use crate::crypto::signature::{SignatureHashes, Signatures};
use crate::crypto::{KeMethod, SharedSecret};
use crate::puzzle::Puzzle;

/// The outcome of IKE_SA_INIT, the same for both roles. IKE_INTERMEDIATE consumes it and gives the next one.
pub(crate) struct Settled {
    /// Algorithms.
    pub(crate) choice: IkeChoice,
    /// Ni.
    pub(crate) nonce_i: Vec<u8>,
    /// Nr.
    pub(crate) nonce_r: Vec<u8>,
    /// SPIi and SPIr.
    pub(crate) spis: (u64, u64),
    /// RealMessage1 and RealMessage2, for AUTH.
    pub(crate) messages: (Vec<u8>, Vec<u8>),
    /// The keys of this stage.
    pub(crate) keys: SetupKeys,
    /// IntAuth_i and IntAuth_r.
    pub(crate) int_auth: (IntAuth, IntAuth),
    /// A NAT is in front of us, in front of the peer.
    pub(crate) nat: (bool, bool),
    /// SEPARATE_TRANSPORTS is agreed.
    pub(crate) separate: bool,
    /// The peer's IKE_SA_INIT carried our vendor ID: unassigned code points mean what we think (transport policy rule 6).
    pub(crate) peer_is_portcullis: bool,
    /// Both sides authenticate both IKE_SA_INIT messages (draft-ietf-ipsecme-ikev2-downgrade-prevention section 6).
    pub(crate) full_transcript: bool,
    /// Both sides fragment (RFC 7383 section 2.3).
    pub(crate) fragments: bool,
    /// The initiator knows REDIRECT (RFC 5685).
    pub(crate) redirect: bool,
    /// How far it is with its PPK.
    pub(crate) ppk: PpkStage,
    /// Additional key exchanges done.
    pub(crate) rounds: usize,
    /// What the peer verifies signatures with, if both ends have sent SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 3).
    pub(crate) signature_hashes: Option<SignatureHashes>,
    /// The signatures that the peer has announced (RFC 9593).
    pub(crate) announced: Option<Signatures>,
    /// SUPPORTED_AUTH_METHODS of a responder that had no room for it in IKE_SA_INIT: for the first IKE_INTERMEDIATE.
    pub(crate) owed_auth_methods: Option<Box<Payload>>,
    /// To be solved by the initiator before IKE_AUTH (RFC 8019 section 7.2), until it is.
    pub(crate) puzzle: Option<Puzzle>,
}

/// What an IKE_INTERMEDIATE is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Round {
    /// An additional key exchange.
    pub(crate) method: Option<KeMethod>,
    /// A PPK: in the last one (RFC 9867).
    pub(crate) ppk: bool,
}

impl Settled {
    /// The IKE_INTERMEDIATE that comes next, or none if IKE_AUTH does.
    pub(crate) fn next_round(&self) -> Option<Round> {
        let method = self.choice.additional.get(self.rounds).copied();
        let is_last = self.rounds + 1 >= self.choice.additional.len();
        let ppk = is_last && self.ppk == PpkStage::InIntermediate;
        (method.is_some() || ppk).then_some(Round { method, ppk })
    }

    /// A PPK of IKE_AUTH goes into the keys.
    pub(crate) fn mix_in_auth(&mut self, ppk: &Ppk) {
        self.keys = self.keys.with_ppk(ppk.secret.expose());
        self.ppk = PpkStage::Mixed(ppk.id.clone());
    }

    /// After an IKE_INTERMEDIATE: its key exchange, and then its PPK.
    pub(crate) fn advance(mut self, shared: Option<&SharedSecret>, ppk: Option<&Ppk>) -> Self {
        if self.next_round().is_some_and(|round| round.ppk) {
            self.ppk = ppk.map_or(PpkStage::None, |ppk| PpkStage::Mixed(ppk.id.clone()));
        }
        let (spi_i, spi_r) = self.spis;
        let context = Context { nonce_i: &self.nonce_i, nonce_r: &self.nonce_r, spi_i, spi_r };
        let mut keys = self.keys;
        if let Some(shared) = shared {
            keys = keys.advance(context, shared);
            self.rounds += 1;
        }
        if let Some(ppk) = ppk {
            keys = keys.advance_by_ppk(context, ppk.secret.expose());
        }
        Self { keys, ..self }
    }

    /// Adds an IKE_INTERMEDIATE message to what AUTH covers.
    pub(crate) fn cover(&mut self, of_initiator: bool, a: &[u8], p: &[u8]) {
        let int_auth = if of_initiator { &mut self.int_auth.0 } else { &mut self.int_auth.1 };
        int_auth.update(&self.keys, of_initiator, a, p);
    }

    /// What one side signs, with its ID payload.
    pub(crate) fn signed_octets<'a>(
        &'a self,
        of_initiator: bool,
        id_body: &'a [u8],
        auth_message_id: u32,
    ) -> SignedOctets<'a> {
        let (own, peers) = match of_initiator {
            true => (&self.messages.0, &self.messages.1),
            false => (&self.messages.1, &self.messages.0),
        };
        SignedOctets {
            message: own,
            peer_message: self.full_transcript.then_some(peers),
            peer_nonce: if of_initiator { &self.nonce_r } else { &self.nonce_i },
            id_body,
            of_initiator,
            int_auth: (&self.int_auth.0, &self.int_auth.1),
            auth_message_id,
        }
    }
}

/// Where NATs are, from the peer's NAT_DETECTION notifications and the addresses of the packet that carried them (RFC
/// 7296 section 2.23): in front of us, in front of the peer. None if the peer sent no such notification.
pub(crate) fn nat_found(
    received: &Received,
    spi_i: u64,
    spi_r: u64,
    local: SocketAddr,
    remote: SocketAddr,
) -> (bool, bool) {
    let is_absent = |kind, address| {
        let hash = nat_detection(spi_i, spi_r, address);
        let mut all = received.notifies(kind).peekable();
        all.peek().is_some() && !all.any(|notify| constant_time_eq(&notify.data, &hash))
    };
    (
        is_absent(NotifyType::NAT_DETECTION_DESTINATION_IP, local),
        is_absent(NotifyType::NAT_DETECTION_SOURCE_IP, remote),
    )
}
