//! The IKEv2 wire format: RFC 7296 section 3, with RFC 7383, RFC 9242 and RFC 9370.
//!
//! [`Message`] is a whole datagram or stream message. What is in clear is decoded into [`Payload`]s; the Encrypted
//! payload stays as it is, and [`Encrypted`] knows where its parts lie. Its content, once decrypted, is decoded by
//! [`decode_chain`]. Decoding borrows from the input and bounds every list; code points are numbers with names, so
//! that a value from a newer RFC survives. Only an unknown critical payload is an error.
//!
//! Nothing here encrypts or decides: keys belong to `crypto`, choices to `proposal` and the endpoint.

mod auth;
mod certificate;
mod code_point;
mod config;
mod delete;
mod encrypted;
mod error;
mod header;
mod identification;
mod key_exchange;
mod limits;
mod message;
mod notify;
mod opaque;
mod payload;
mod reader;
mod redirect;
mod sa;
mod spi;
mod traffic_selector;
mod ts_negotiation;
mod ts_payload;
mod ts_text;
mod writer;

pub use auth::Authentication;
pub use certificate::{Certificate, CertificateRequest};
pub use code_point::{
    AttributeType, AuthMethod, CertEncoding, CfgAttributeType, CfgType, EncrId, ExchangeType, HashAlgorithm,
    IdType, IntegId, KeLengths, KeMethod, NotifyType, PayloadType, PrfId, ProtocolId, SnId, TransformType,
    TsType,
};
pub use config::{Configuration, ConfigurationAttribute};
pub use delete::Delete;
pub use encrypted::{CipherLayout, Encrypted, Fragment, Protected, SealParts};
pub use error::{DecodeError, EncodeError, Malformed, TooMany};
pub use header::{Flags, HEADER_LEN, Header, NON_ESP_MARKER, without_non_esp_marker};
pub use identification::Identification;
pub use key_exchange::KeyExchange;
pub use limits::{
    MAX_ATTRIBUTES, MAX_CONFIGURATION_ATTRIBUTES, MAX_MESSAGE_LEN, MAX_NONCE_LEN, MAX_PAYLOADS,
    MAX_PROPOSALS, MAX_SPIS, MAX_TRAFFIC_SELECTORS, MAX_TRANSFORMS, MIN_NONCE_LEN,
};
pub use message::{Message, encode_message};
pub use notify::{Notify, PuzzleDemand};
pub use opaque::{Eap, Nonce, PuzzleSolution, UnknownPayload, VendorId};
pub use payload::{Payload, PayloadChain, decode_chain};
pub use redirect::{GatewayIdentity, decode_redirect, encode_redirect};
pub use sa::{AttributeValue, Proposal, SecurityAssociation, Transform, TransformAttribute};
pub use spi::Spi;
pub use traffic_selector::{AddressRange, PortRange, TrafficSelector};
pub use ts_negotiation::{covers, narrow};
pub use ts_payload::{TrafficSelectors, TsEntry, UnknownSelector};
pub use ts_text::SelectorSyntaxError;
