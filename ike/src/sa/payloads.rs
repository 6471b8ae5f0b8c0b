//! Payloads as the exchanges see them: what a message may hold once is a field, and what we send is made by name.

use portcullis_pki::DistinguishedName;

use super::error::ExchangeError;
use crate::codec::{
    AuthMethod, Authentication, CertEncoding, Certificate, CertificateRequest, DecodeError, Delete, IdType,
    Identification, KeyExchange, Malformed, Nonce, Notify, NotifyType, PuzzleDemand, PuzzleSolution,
    SecurityAssociation, Spi, TrafficSelector, TrafficSelectors, VendorId, decode_chain,
};
pub(crate) use crate::codec::{PayloadChain, Proposal};
use crate::config::Identity;
use crate::crypto::KeMethod;
use crate::crypto::signature::SignatureHashes;

/// SHA-1 of SubjectPublicKeyInfo.
pub(crate) type KeyHash = [u8; 20];
/// A payload of ours.
pub(crate) type Payload = crate::codec::Payload<'static>;
/// The payloads of a message of ours, in order.
pub(crate) type Out = Vec<Payload>;

/// The payloads of a received message. Repeated payloads that may not be repeated are refused before, by the codec.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// SA.
    pub(crate) sa: Option<Vec<Proposal>>,
    /// KE.
    pub(crate) ke: Option<ReceivedKe>,
    /// Nonce.
    pub(crate) nonce: Option<Vec<u8>>,
    /// IDi.
    pub(crate) id_i: Option<ReceivedId>,
    /// IDr.
    pub(crate) id_r: Option<ReceivedId>,
    /// CERT, all of them, in order.
    pub(crate) certs: Vec<ReceivedCert>,
    /// AUTH.
    pub(crate) auth: Option<ReceivedAuth>,
    /// TSi.
    pub(crate) ts_i: Option<Vec<TrafficSelector>>,
    /// TSr.
    pub(crate) ts_r: Option<Vec<TrafficSelector>>,
    /// N, all of them.
    pub(crate) all_notifies: Vec<ReceivedNotify>,
    /// D, all of them.
    pub(crate) deletes: Vec<Delete>,
    /// V, all of them.
    pub(crate) vendor_ids: Vec<Vec<u8>>,
    /// PS.
    pub(crate) puzzle_solution: Option<Vec<u8>>,
}

/// KE as received.
#[derive(Debug)]
pub(crate) struct ReceivedKe {
    /// Key Exchange Method.
    pub(crate) method: u16,
    /// Key Exchange Data.
    pub(crate) data: Vec<u8>,
}

/// IDi or IDr as received.
#[derive(Debug)]
pub(crate) struct ReceivedId {
    /// What it says, if it is a kind that can be configured.
    pub(crate) identity: Option<Identity>,
    /// The payload without its generic header, for AUTH.
    pub(crate) body: Vec<u8>,
}

/// CERT as received.
#[derive(Debug)]
pub(crate) struct ReceivedCert {
    /// Cert Encoding.
    pub(crate) encoding: CertEncoding,
    /// Certificate Data.
    pub(crate) data: Vec<u8>,
}

/// AUTH as received.
#[derive(Debug)]
pub(crate) struct ReceivedAuth {
    /// Authentication Method.
    pub(crate) method: AuthMethod,
    /// Authentication Data.
    pub(crate) data: Vec<u8>,
}

/// A notification as received.
#[derive(Debug)]
pub(crate) struct ReceivedNotify {
    /// Notify Message Type.
    pub(crate) kind: NotifyType,
    /// The ESP SA that it is about.
    pub(crate) child_spi: Option<u32>,
    /// Notification Data.
    pub(crate) data: Vec<u8>,
}

impl Received {
    /// Reads the content of an Encrypted payload.
    pub(crate) fn decode(content: &PayloadChain) -> Result<Self, ExchangeError> {
        Ok(Self::new(decode_chain(content.first, &content.bytes)?))
    }

    /// Sorts payloads.
    pub(crate) fn new(payloads: Vec<crate::codec::Payload<'_>>) -> Self {
        use crate::codec::Payload;
        let mut all = Self::default();
        for payload in payloads {
            match payload {
                Payload::Sa(sa) => all.sa = Some(sa.proposals),
                Payload::Ke(ke) => {
                    all.ke = Some(ReceivedKe { method: ke.method.0, data: ke.data.into_owned() })
                }
                Payload::Nonce(nonce) => all.nonce = Some(nonce.0.into_owned()),
                Payload::IdI(id) => all.id_i = Some(ReceivedId::new(&id)),
                Payload::IdR(id) => all.id_r = Some(ReceivedId::new(&id)),
                Payload::Auth(auth) => {
                    all.auth = Some(ReceivedAuth { method: auth.method, data: auth.data.into_owned() });
                }
                Payload::TsI(ts) => all.ts_i = Some(ts.ip()),
                Payload::TsR(ts) => all.ts_r = Some(ts.ip()),
                Payload::Notify(notify) => all.all_notifies.push(ReceivedNotify {
                    kind: notify.notify_type,
                    child_spi: notify.spi.child(),
                    data: notify.data.into_owned(),
                }),
                Payload::Delete(delete) => all.deletes.push(delete),
                Payload::VendorId(id) => all.vendor_ids.push(id.0.into_owned()),
                Payload::Ps(solution) => all.puzzle_solution = Some(solution.0.into_owned()),
                Payload::Cert(cert) => {
                    all.certs.push(ReceivedCert { encoding: cert.encoding, data: cert.data.into_owned() });
                }
                // A connection has one certificate, which no request can change (RFC 7296 section 3.7).
                Payload::CertReq(_) | Payload::Cp(_) | Payload::Eap(_) | Payload::Unknown(_) => {}
            }
        }
        all
    }

    /// Every notification of this type.
    pub(crate) fn notifies(&self, kind: NotifyType) -> impl Iterator<Item = &ReceivedNotify> {
        self.all_notifies.iter().filter(move |notify| notify.kind == kind)
    }

    /// The first notification of this type.
    pub(crate) fn first(&self, kind: NotifyType) -> Option<&ReceivedNotify> {
        self.notifies(kind).next()
    }

    /// A notification of this type is there.
    pub(crate) fn has(&self, kind: NotifyType) -> bool {
        self.first(kind).is_some()
    }

    /// What the first PUZZLE notification asks for, if it can be read.
    pub(crate) fn puzzle_demand(&self) -> Option<PuzzleDemand> {
        let puzzle = self.first(NotifyType::PUZZLE)?;
        Notify::with_data(NotifyType::PUZZLE, (&*puzzle.data).into()).puzzle_demand()
    }

    /// The hashes that the peer verifies signatures with, if it says so in a form that can be read (RFC 7427 section 4).
    pub(crate) fn signature_hashes(&self) -> Option<SignatureHashes> {
        let kind = NotifyType::SIGNATURE_HASH_ALGORITHMS;
        let data = &*self.first(kind)?.data;
        Notify::with_data(kind, data.into()).hash_algorithms().map(|hashes| SignatureHashes::of(&hashes))
    }

    /// The first error notification, known or not (RFC 7296 section 3.10.1).
    pub(crate) fn error(&self) -> Option<NotifyType> {
        self.all_notifies.iter().map(|notify| notify.kind).find(|kind| kind.is_error())
    }

    /// SA, KE and Nonce, which every IKE_SA_INIT and IKE rekey has.
    pub(crate) fn init_parts(&self) -> Result<(&Vec<Proposal>, &ReceivedKe, &Vec<u8>), ExchangeError> {
        match (&self.sa, &self.ke, &self.nonce) {
            (Some(sa), Some(ke), Some(nonce)) => Ok((sa, ke, nonce)),
            _ => Err(ExchangeError::Payloads("SA, KE or Nonce is missing")),
        }
    }

    /// Nonce, which every CREATE_CHILD_SA has.
    pub(crate) fn nonce(&self) -> Result<&Vec<u8>, ExchangeError> {
        self.nonce.as_ref().ok_or(ExchangeError::Payloads("Nonce is missing"))
    }

    /// An IKE_AUTH with a Child SA: what RFC 6023 section 5 leaves out is there.
    pub(crate) fn asks_for_child(&self) -> bool {
        self.sa.is_some() || self.ts_i.is_some() || self.ts_r.is_some()
    }

    /// TSi and TSr.
    pub(crate) fn selectors(&self) -> Result<(&[TrafficSelector], &[TrafficSelector]), ExchangeError> {
        match (&self.ts_i, &self.ts_r) {
            (Some(ts_i), Some(ts_r)) => Ok((ts_i, ts_r)),
            _ => Err(ExchangeError::Payloads("TSi or TSr is missing")),
        }
    }
}

impl ReceivedId {
    fn new(id: &Identification<'_>) -> Self {
        let text = || String::from_utf8(id.data.to_vec()).ok();
        let identity = match id.id_type {
            IdType::FQDN => text().map(Identity::Fqdn),
            IdType::RFC822_ADDR => text().map(Identity::Email),
            IdType::DER_ASN1_DN => DistinguishedName::from_der(&id.data).map(Identity::Name),
            IdType::KEY_ID => Some(Identity::KeyId(id.data.to_vec())),
            _ => id.address().map(Identity::Address),
        };
        Self { identity, body: id.body() }
    }
}

impl From<DecodeError> for ExchangeError {
    fn from(error: DecodeError) -> Self {
        match error.cause {
            Malformed::UnsupportedCritical(payload) => Self::UnsupportedCritical(payload),
            _ => Self::Malformed,
        }
    }
}

/// An identity as a payload says it.
pub(crate) fn identification(identity: &Identity) -> Identification<'static> {
    match identity {
        Identity::Fqdn(name) => Identification::new(IdType::FQDN, name.clone().into_bytes()),
        Identity::Email(name) => Identification::new(IdType::RFC822_ADDR, name.clone().into_bytes()),
        Identity::Address(address) => Identification::from_address(*address),
        Identity::Name(name) => Identification::new(IdType::DER_ASN1_DN, name.der().to_vec()),
        Identity::KeyId(octets) => Identification::new(IdType::KEY_ID, octets.clone()),
    }
}

/// SA.
pub(crate) fn sa(proposals: Vec<Proposal>) -> Payload {
    Payload::Sa(SecurityAssociation { proposals })
}

/// KE.
pub(crate) fn ke(method: KeMethod, data: Vec<u8>) -> Payload {
    Payload::Ke(KeyExchange { method: crate::codec::KeMethod(method.id()), data: data.into() })
}

/// Nonce.
pub(crate) fn nonce(nonce: Vec<u8>) -> Payload {
    Payload::Nonce(Nonce(nonce.into()))
}

/// IDi.
pub(crate) fn id_i(id: Identification<'static>) -> Payload {
    Payload::IdI(id)
}

/// IDr.
pub(crate) fn id_r(id: Identification<'static>) -> Payload {
    Payload::IdR(id)
}

/// AUTH.
pub(crate) fn auth(method: AuthMethod, data: Vec<u8>) -> Payload {
    Payload::Auth(Authentication { method, data: data.into() })
}

/// CERT with an X.509 certificate (RFC 7296 section 3.6).
pub(crate) fn cert(certificate: &portcullis_pki::Certificate) -> Payload {
    Payload::Cert(Certificate {
        encoding: CertEncoding::X509_SIGNATURE,
        data: certificate.der().to_vec().into(),
    })
}

/// CERTREQ for certificates of these authorities, by the hashes of their keys (RFC 7296 section 3.7).
pub(crate) fn cert_request(authorities: &[KeyHash]) -> Payload {
    Payload::CertReq(CertificateRequest {
        encoding: CertEncoding::X509_SIGNATURE,
        authorities: authorities.concat().into(),
    })
}

/// SIGNATURE_HASH_ALGORITHMS: what we verify signatures with (RFC 7427 section 4).
pub(crate) fn signature_hashes() -> Payload {
    Payload::Notify(Notify::signature_hash_algorithms(&SignatureHashes::OURS))
}

/// TSi.
pub(crate) fn ts_i(selectors: &[TrafficSelector]) -> Payload {
    Payload::TsI(TrafficSelectors::new(selectors))
}

/// TSr.
pub(crate) fn ts_r(selectors: &[TrafficSelector]) -> Payload {
    Payload::TsR(TrafficSelectors::new(selectors))
}

/// V.
pub(crate) fn vendor_id(id: Vec<u8>) -> Payload {
    Payload::VendorId(VendorId(id.into()))
}

/// N without data.
pub(crate) fn notify(kind: NotifyType) -> Payload {
    Payload::Notify(Notify::new(kind))
}

/// N with data.
pub(crate) fn notify_with(kind: NotifyType, data: Vec<u8>) -> Payload {
    Payload::Notify(Notify::with_data(kind, data.into()))
}

/// N for a puzzle (RFC 8019 section 8.1).
pub(crate) fn puzzle(demand: PuzzleDemand) -> Payload {
    Payload::Notify(Notify::puzzle(demand))
}

/// PS (RFC 8019 section 8.2).
pub(crate) fn puzzle_solution(solution: Vec<u8>) -> Payload {
    Payload::Ps(PuzzleSolution(solution.into()))
}

/// N about a Child SA.
pub(crate) fn notify_child(kind: NotifyType, spi: u32) -> Payload {
    Payload::Notify(Notify::about_child(kind, spi))
}

/// The error as N, with the data that its type asks for; nothing where silence is the answer.
pub(crate) fn error(error: ExchangeError, child_spi: Option<u32>) -> Out {
    let Some(kind) = error.notify() else { return Out::new() };
    vec![match (error, child_spi) {
        (ExchangeError::UnsupportedCritical(payload), _) => {
            Payload::Notify(Notify::unsupported_critical_payload(payload))
        }
        (ExchangeError::WrongKeMethod(method), _) => {
            Payload::Notify(Notify::invalid_ke_payload(crate::codec::KeMethod(method.id())))
        }
        (ExchangeError::NoSuchChild, Some(spi)) => notify_child(kind, spi),
        _ => notify(kind),
    }]
}

/// D for the IKE SA.
pub(crate) fn delete_ike() -> Payload {
    Payload::Delete(Delete::Ike)
}

/// D for ESP SAs, by our inbound SPIs.
pub(crate) fn delete_children(spis: Vec<u32>) -> Payload {
    Payload::Delete(Delete::Child { protocol: crate::codec::ProtocolId::ESP, spis })
}

/// The SPI of an ESP SA in a proposal.
pub(crate) fn child_spi(spi: u32) -> Spi {
    Spi::Child(spi)
}

/// Puts payloads into octets; `None` if they do not fit.
pub(crate) fn encode(payloads: &[Payload]) -> Option<PayloadChain> {
    PayloadChain::encode(payloads).ok()
}
