//! Sans-IO X.509 for IKE (RFC 5280, RFC 4945): DER and wall time in, a verdict out. No file, no socket, no clock.
//!
//! [`Certificate`] is one certificate as far as IKE looks into it, [`Trust`] the authorities and revocation lists that a peer's
//! chain is verified against, [`Subject`] who the certificate has to be for, and [`Refusal`] why it is not accepted. Parsing is
//! `x509-cert`'s, path validation `rustls-webpki`'s, signatures `aws-lc-rs`'s; the rules of RFC 4945 on top are here.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod certificate;
mod key;
mod name;
pub mod pem;
mod refusal;
mod request;
mod subject;
mod trust;

pub use certificate::Certificate;
pub use key::{KeyType, PublicKey};
pub use name::DistinguishedName;
pub use refusal::Refusal;
pub use request::Request;
pub use subject::Subject;
pub use trust::{MAX_CHAIN, Trust};

/// Wall time: seconds since 1970, UTC. Never read here.
pub type WallTime = core::time::Duration;
