//! IKE_SA_INIT (RFC 7296 section 1.2), both roles.

use core::net::{IpAddr, SocketAddr};

use super::auth_methods;
use super::error::ExchangeError;
use super::negotiate::{self, IkeChoice};
use super::payloads::{self, KeyHash, Out, Payload, Received};
use super::ppk::{self, PpkOffer, PpkStage};
use super::settled::{Settled, nat_found};
use crate::codec::{GatewayIdentity, Notify, NotifyType, decode_redirect, encode_redirect};
use crate::config::FullTranscriptAuth;
use crate::crypto::digest::nat_detection;
use crate::crypto::ke::respond;
use crate::crypto::schedule::{Context, SetupKeys};
use crate::crypto::{KeMethod, ReusableKe, Rng};
use crate::proposal::IkeProposal;
use crate::puzzle::Puzzle;
use crate::status::Reason;
use crate::transport::table::Outcome;

/// Guards code points that are not assigned yet (transport policy rule 6).
pub(crate) const VENDOR_ID: &[u8; 16] = b"Portcullis IKEv2";

/// With Key Exchange Data of this length or less, SUPPORTED_AUTH_METHODS fits into the smallest packet too.
const SHORT_KEY_EXCHANGE_DATA: usize = 256;

/// Requests repeated for a cookie or another key exchange method, at most.
const MOST_REPEATS: u8 = 6;

/// The addresses of the exchange, for NAT detection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Ours.
    pub(crate) local: SocketAddr,
    /// The peer's.
    pub(crate) remote: SocketAddr,
}

/// An initiator that waits for the IKE_SA_INIT response.
pub(crate) struct InitSent {
    proposals: Vec<IkeProposal>,
    ke: ReusableKe,
    ke_data: Vec<u8>,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    /// For the puzzle that went with the cookie.
    solution: Option<Vec<u8>>,
    wishes: Wishes,
    repeats: u8,
    /// RealMessage1: the request as it left last.
    pub(crate) request: Vec<u8>,
}

/// What an initiator offers and insists on beside its proposals.
#[derive(Clone, Copy)]
pub(crate) struct Wishes {
    /// The notify type of SEPARATE_TRANSPORTS, if it is offered.
    pub(crate) separate: Option<NotifyType>,
    /// Unassigned code points are believed without the vendor ID.
    pub(crate) assume_code_points: bool,
    /// No IKE SA without IKE_SA_INIT_FULL_TRANSCRIPT_AUTH.
    pub(crate) full_transcript: FullTranscriptAuth,
    /// No IKE SA with a responder that takes no IKE_AUTH without a Child SA.
    pub(crate) childless: bool,
    /// REDIRECT is known, or has brought us here.
    pub(crate) redirect: RedirectWish,
    /// USE_PPK and USE_PPK_INT are offered.
    pub(crate) ppk: Option<PpkOffer>,
    /// SIGNATURE_HASH_ALGORITHMS goes with the request (RFC 7427 section 4).
    pub(crate) signatures: bool,
}

/// What an initiator says of REDIRECT (RFC 5685 section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RedirectWish {
    /// Nothing.
    None,
    /// REDIRECT_SUPPORTED.
    Supported,
    /// REDIRECTED_FROM, which says the same.
    From(IpAddr),
}

impl RedirectWish {
    fn notification(self) -> Option<payloads::Payload> {
        match self {
            Self::None => None,
            Self::Supported => Some(payloads::notify(NotifyType::REDIRECT_SUPPORTED)),
            Self::From(gateway) => {
                Some(payloads::notify_with(NotifyType::REDIRECTED_FROM, encode_redirect(gateway, &[])))
            }
        }
    }
}

/// The initiator of these payloads can be redirected.
pub(crate) fn knows_redirect(received: &Received) -> bool {
    received.has(NotifyType::REDIRECT_SUPPORTED) || received.has(NotifyType::REDIRECTED_FROM)
}

/// What a response leads to.
pub(crate) enum InitAnswer {
    /// Send the request again, changed as the responder asked.
    Repeat,
    /// Solve this puzzle, then send the request again.
    Puzzle(Puzzle),
    /// Keys exist.
    Settled(Box<Settled>),
}

impl InitSent {
    /// Fresh keys and nonce for the first key exchange method of the best proposal.
    pub(crate) fn new(
        proposals: &[IkeProposal],
        wishes: Wishes,
        nonce: Vec<u8>,
        rng: &mut Rng,
    ) -> Result<Self, ExchangeError> {
        let method = negotiate::first_ke_method(proposals).ok_or(ExchangeError::NoProposal)?;
        let (ke, ke_data) = ReusableKe::generate(method, rng)?;
        Ok(Self {
            proposals: proposals.to_vec(),
            ke,
            ke_data,
            nonce,
            cookie: None,
            solution: None,
            wishes,
            repeats: 0,
            request: Vec::new(),
        })
    }

    /// The payloads of the request. COOKIE comes first (RFC 7296 section 2.6), then PS (RFC 8019 section 7.1.2).
    pub(crate) fn payloads(&self, spi_i: u64, ends: Ends) -> Out {
        let mut out = Out::new();
        out.extend(
            self.cookie.iter().map(|cookie| payloads::notify_with(NotifyType::COOKIE, cookie.clone())),
        );
        out.extend(self.solution.iter().map(|solution| payloads::puzzle_solution(solution.clone())));
        out.push(payloads::sa(negotiate::offer_ike(&self.proposals, None)));
        out.push(payloads::ke(self.ke.method(), self.ke_data.clone()));
        out.push(payloads::nonce(self.nonce.clone()));
        out.extend(nat_detection_payloads(spi_i, 0, ends));
        out.push(payloads::notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED));
        let may_need_intermediate = self.wishes.ppk.is_some_and(|ppk| ppk.in_intermediate)
            || negotiate::has_additional_ke(&self.proposals);
        if may_need_intermediate {
            out.push(payloads::notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED));
        }
        out.extend(self.wishes.redirect.notification());
        out.extend(self.wishes.ppk.into_iter().flat_map(PpkOffer::notifications));
        if self.wishes.full_transcript != FullTranscriptAuth::Off {
            out.push(payloads::notify(NotifyType::IKE_SA_INIT_FULL_TRANSCRIPT_AUTH));
        }
        if self.wishes.signatures {
            out.push(payloads::signature_hashes());
        }
        out.extend(self.wishes.separate.map(payloads::notify));
        out.push(payloads::vendor_id(VENDOR_ID.to_vec()));
        out
    }

    /// The solution of the puzzle that came with the cookie; `None` if it was not found, and the cookie has to do (RFC 8019
    /// section 7.1.2).
    pub(crate) fn solve(&mut self, solution: Option<Vec<u8>>) {
        self.solution = solution;
    }

    /// What a response says about SEPARATE_TRANSPORTS: agreed to, if it was offered, is there, and is believed.
    pub(crate) fn outcome(&self, received: &Received) -> Outcome {
        match self.wishes.separate {
            None => Outcome::NotOffered,
            Some(kind) if believes_separate(received, kind, self.wishes.assume_code_points) => {
                Outcome::Agreed
            }
            Some(_) => Outcome::NotAnswered,
        }
    }

    /// The gateway that a response sends us to, if it has our nonce (RFC 5685 section 3); else it has to be passed over.
    pub(crate) fn redirected(&self, received: &Received) -> Option<Result<GatewayIdentity, ()>> {
        let redirect = received.first(NotifyType::REDIRECT)?;
        if self.wishes.redirect == RedirectWish::None {
            return None;
        }
        Some(match decode_redirect(&redirect.data) {
            Some((gateway, nonce)) if nonce == self.nonce => Ok(gateway),
            _ => Err(()),
        })
    }

    /// The response is one of those that ask for another request: they are judged before SEPARATE_TRANSPORTS is.
    pub(crate) fn asks_to_repeat(received: &Received) -> bool {
        received.has(NotifyType::COOKIE) || received.has(NotifyType::INVALID_KE_PAYLOAD)
    }

    /// Processes a response. It leaves the private values where they are: nothing in IKE_SA_INIT is authenticated, so another
    /// response may be the right one (RFC 7296 sections 2.4 and 2.21.1).
    pub(crate) fn answered(
        &mut self,
        received: &Received,
        response: &[u8],
        spis: (u64, u64),
        ends: Ends,
        rng: &mut Rng,
    ) -> Result<InitAnswer, ExchangeError> {
        if let Some(cookie) = received.first(NotifyType::COOKIE) {
            if cookie.data.is_empty() || cookie.data.len() > 64 || self.repeats >= MOST_REPEATS {
                return Err(ExchangeError::Payloads("COOKIE of a wrong size, or too often"));
            }
            self.cookie = Some(cookie.data.clone());
            self.solution = None;
            self.repeats += 1;
            let puzzle =
                received.puzzle_demand().and_then(|demand| Puzzle::demanded(demand, cookie.data.clone()));
            return Ok(match puzzle {
                Some(puzzle) => InitAnswer::Puzzle(puzzle),
                None => InitAnswer::Repeat,
            });
        }
        if let Some(wanted) = received.first(NotifyType::INVALID_KE_PAYLOAD) {
            return self.take_method(&wanted.data, rng);
        }
        if let Some(error) = received.error() {
            return Err(ExchangeError::Peer(error));
        }
        let (sa, ke, nonce_r) = received.init_parts()?;
        let choice = negotiate::accept_ike(sa, &self.proposals)?;
        let method = KeMethod::from_id(ke.method).filter(|method| *method == choice.ke);
        if spis.1 == 0 || method != Some(self.ke.method()) {
            return Err(ExchangeError::NotOffered);
        }
        if !choice.additional.is_empty() && !received.has(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED) {
            return Err(ExchangeError::Payloads("additional key exchanges without IKE_INTERMEDIATE"));
        }
        let full_transcript = self.wishes.full_transcript != FullTranscriptAuth::Off
            && received.has(NotifyType::IKE_SA_INIT_FULL_TRANSCRIPT_AUTH);
        if !full_transcript && self.wishes.full_transcript == FullTranscriptAuth::Require {
            return Err(ExchangeError::Policy(Reason::PeerNoTranscriptAuth));
        }
        if self.wishes.childless && !received.has(NotifyType::CHILDLESS_IKEV2_SUPPORTED) {
            // RFC 6023 section 3.
            return Err(ExchangeError::Policy(Reason::PeerNoChildless));
        }
        let ppk = ppk::agreed(self.wishes.ppk, received);
        if ppk == PpkStage::None && self.wishes.ppk.is_some_and(|ppk| ppk.required) {
            return Err(ExchangeError::Ppk);
        }
        let shared = self.ke.agree(&ke.data)?;
        let (nonce_i, nonce_r) = (self.nonce.clone(), nonce_r.clone());
        let context = Context { nonce_i: &nonce_i, nonce_r: &nonce_r, spi_i: spis.0, spi_r: spis.1 };
        let keys = SetupKeys::new(choice.suite, context, &shared);
        Ok(InitAnswer::Settled(Box::new(Settled {
            nat: nat_found(received, spis.0, spis.1, ends.local, ends.remote),
            fragments: received.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
            separate: self.outcome(received) == Outcome::Agreed,
            peer_is_portcullis: is_portcullis(received),
            full_transcript,
            redirect: self.wishes.redirect != RedirectWish::None,
            ppk,
            signature_hashes: received.signature_hashes().filter(|_| self.wishes.signatures),
            announced: auth_methods::of_peer(received),
            owed_auth_methods: None,
            choice,
            keys,
            spis,
            nonce_i,
            puzzle: received.puzzle_demand().and_then(|demand| {
                // RFC 8019 section 7.2.3.
                Puzzle::demanded(demand, [&*nonce_r, &spis.1.to_be_bytes()[..]].concat())
            }),
            nonce_r,
            messages: (self.request.clone(), response.to_vec()),
            int_auth: Default::default(),
            rounds: 0,
        })))
    }

    /// INVALID_KE_PAYLOAD names the method that the responder wants (RFC 7296 section 1.2). It has to be one that we
    /// offered and have not just used.
    fn take_method(&mut self, data: &[u8], rng: &mut Rng) -> Result<InitAnswer, ExchangeError> {
        let method = match data {
            [high, low] => KeMethod::from_id(u16::from_be_bytes([*high, *low])),
            _ => None,
        };
        let wanted = method
            .filter(|method| negotiate::offers_ke(&self.proposals, *method))
            .filter(|method| *method != self.ke.method() && self.repeats < MOST_REPEATS);
        let method = wanted.ok_or(ExchangeError::Peer(NotifyType::INVALID_KE_PAYLOAD))?;
        (self.ke, self.ke_data) = ReusableKe::generate(method, rng)?;
        self.repeats += 1;
        Ok(InitAnswer::Repeat)
    }
}

/// What a responder needs to know to answer an IKE_SA_INIT request.
pub(crate) struct Terms<'a> {
    /// The proposals of each connection that may be meant, best connection first.
    pub(crate) proposals: &'a [&'a [IkeProposal]],
    /// The notify type of SEPARATE_TRANSPORTS, if one of those connections allows it and TCP is listened on.
    pub(crate) separate: Option<NotifyType>,
    /// One of those connections believes unassigned code points without the vendor ID.
    pub(crate) assume_code_points: bool,
    /// IKE_SA_INIT_FULL_TRANSCRIPT_AUTH is announced, whether the request has it or not.
    pub(crate) full_transcript: bool,
    /// One of those connections has a PPK.
    pub(crate) ppk: Option<PpkOffer>,
    /// One of those connections has signatures.
    pub(crate) signs: bool,
    /// SUPPORTED_AUTH_METHODS, if those connections have certificates (RFC 9593).
    pub(crate) auth_methods: Option<Payload>,
    /// The authorities that those connections have certificates of.
    pub(crate) authorities: &'a [KeyHash],
    /// Zero bits of the puzzle that has to be solved before IKE_AUTH, if there is one (RFC 8019 section 7.2).
    pub(crate) puzzle: Option<u8>,
}

/// A responder's answer to an IKE_SA_INIT request: the payloads of the response, and the state, which lacks RealMessage2
/// until the response is encoded.
pub(crate) fn respond_to_init(
    received: &Received,
    request: &[u8],
    spis: (u64, u64),
    ends: Ends,
    terms: &Terms<'_>,
    nonce_r: Vec<u8>,
    rng: &mut Rng,
) -> Result<(Out, Settled), ExchangeError> {
    let (sa, ke, nonce_i) = received.init_parts()?;
    let can_intermediate = received.has(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED);
    let (answer, choice) = terms
        .proposals
        .iter()
        .find_map(|ours| negotiate::choose_ike(sa, ours, can_intermediate))
        .ok_or(ExchangeError::NoProposal)?;
    let IkeChoice { ke: method, .. } = choice;
    if KeMethod::from_id(ke.method) != Some(method) {
        return Err(ExchangeError::WrongKeMethod(method));
    }
    let (ke_data, shared) = respond(method, &ke.data, rng)?;
    let separate = terms.separate.filter(|kind| believes_separate(received, *kind, terms.assume_code_points));
    let fragments = received.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED);
    let ppk = ppk::agreed(terms.ppk, received);
    let signature_hashes = received.signature_hashes().filter(|_| terms.signs);
    let has_room = ke_data.len() <= SHORT_KEY_EXCHANGE_DATA;

    let intermediate = !choice.additional.is_empty() || ppk == PpkStage::InIntermediate;
    let mut auth_methods = terms.auth_methods.clone().filter(|_| signature_hashes.is_some());

    let mut out = Out::new();
    out.push(payloads::sa(vec![answer]));
    out.push(payloads::ke(method, ke_data));
    out.push(payloads::nonce(nonce_r.clone()));
    if !terms.authorities.is_empty() {
        out.push(payloads::cert_request(terms.authorities));
    }
    out.extend(nat_detection_payloads(spis.0, spis.1, ends));
    if signature_hashes.is_some() {
        out.push(payloads::signature_hashes());
    }
    // IKE_SA_INIT cannot be fragmented. An empty notification says that the list follows in IKE_INTERMEDIATE (RFC 9593).
    if has_room {
        out.extend(auth_methods.take());
    } else if intermediate && auth_methods.is_some() {
        out.push(payloads::notify(NotifyType::SUPPORTED_AUTH_METHODS));
    }
    if fragments {
        out.push(payloads::notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED));
    }
    if intermediate {
        out.push(payloads::notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED));
    }
    out.push(payloads::Payload::Notify(Notify::childless_ikev2_supported()));
    out.extend(ppk.notification());
    if terms.full_transcript {
        out.push(payloads::notify(NotifyType::IKE_SA_INIT_FULL_TRANSCRIPT_AUTH));
    }
    out.extend(separate.map(payloads::notify));
    let puzzle = terms.puzzle.map(|difficulty| {
        Puzzle::new(choice.suite.prf, [&*nonce_r, &spis.1.to_be_bytes()[..]].concat(), difficulty)
    });
    out.extend(puzzle.iter().map(|puzzle| payloads::puzzle(puzzle.demand())));
    out.push(payloads::vendor_id(VENDOR_ID.to_vec()));

    let context = Context { nonce_i, nonce_r: &nonce_r, spi_i: spis.0, spi_r: spis.1 };
    let settled = Settled {
        keys: SetupKeys::new(choice.suite, context, &shared),
        // The request was made before our SPI existed (RFC 7296 section 2.23).
        nat: nat_found(received, spis.0, 0, ends.local, ends.remote),
        separate: separate.is_some(),
        peer_is_portcullis: is_portcullis(received),
        full_transcript: terms.full_transcript && received.has(NotifyType::IKE_SA_INIT_FULL_TRANSCRIPT_AUTH),
        redirect: knows_redirect(received),
        ppk,
        fragments,
        signature_hashes,
        // The initiator says it in IKE_AUTH, or in IKE_INTERMEDIATE.
        announced: None,
        owed_auth_methods: auth_methods.filter(|_| intermediate).map(Box::new),
        choice,
        spis,
        nonce_i: nonce_i.clone(),
        nonce_r,
        puzzle,
        messages: (request.to_vec(), Vec::new()),
        int_auth: Default::default(),
        rounds: 0,
    };
    Ok((out, settled))
}

/// Rule 6: SEPARATE_TRANSPORTS has no assigned number, so it means what we think only from a peer with our vendor ID.
fn believes_separate(received: &Received, kind: NotifyType, assume_code_points: bool) -> bool {
    received.has(kind) && (assume_code_points || is_portcullis(received))
}

fn is_portcullis(received: &Received) -> bool {
    received.vendor_ids.iter().any(|id| id == VENDOR_ID)
}

fn nat_detection_payloads(spi_i: u64, spi_r: u64, ends: Ends) -> Out {
    let hash = |kind, address| payloads::notify_with(kind, nat_detection(spi_i, spi_r, address).to_vec());
    vec![
        hash(NotifyType::NAT_DETECTION_SOURCE_IP, ends.local),
        hash(NotifyType::NAT_DETECTION_DESTINATION_IP, ends.remote),
    ]
}
