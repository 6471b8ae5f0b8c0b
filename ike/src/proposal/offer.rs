//! Proposals as SA payloads carry them (RFC 7296 section 3.3, RFC 9370 section 2.2.1).

use super::{AdditionalKes, EspProposal, IkeProposal};
use crate::codec::{KeMethod, Proposal, ProtocolId, SecurityAssociation, Spi, Transform, TransformType};

/// The SA payload that offers these for an IKE SA. `spi` is none in IKE_SA_INIT and the new one in a rekey.
pub fn offer_ike(proposals: &[IkeProposal], spi: Spi) -> SecurityAssociation {
    offer(proposals, ProtocolId::IKE, &spi)
}

/// The SA payload that offers these for a Child SA with our inbound SPI.
pub fn offer_esp(proposals: &[EspProposal], spi: u32) -> SecurityAssociation {
    offer(proposals, ProtocolId::ESP, &Spi::Child(spi))
}

fn offer<P: Acceptable>(proposals: &[P], protocol: ProtocolId, spi: &Spi) -> SecurityAssociation {
    let numbered = (1..=u8::MAX).zip(proposals);
    let to_wire = |(number, proposal): (u8, &P)| Proposal {
        number,
        protocol,
        spi: spi.clone(),
        transforms: proposal.transforms(),
    };
    SecurityAssociation { proposals: numbered.map(to_wire).collect() }
}

/// What we would agree to: transforms, those of one type together and best first.
pub(super) trait Acceptable {
    fn transforms(&self) -> Vec<Transform>;
}

impl Acceptable for IkeProposal {
    fn transforms(&self) -> Vec<Transform> {
        let encr = self.encr.iter().map(|encryption| encryption.to_transform());
        let prf = self.prf.iter().map(|prf| Transform::new(TransformType::PRF, prf.0));
        encr.chain(prf)
            .chain(methods(TransformType::KE, &self.ke))
            .chain(additional(&self.additional))
            .collect()
    }
}

impl Acceptable for EspProposal {
    fn transforms(&self) -> Vec<Transform> {
        let encr = self.encr.iter().map(|encryption| encryption.to_transform());
        let sn = self.sn.iter().map(|sn| Transform::new(TransformType::SN, sn.0));
        encr.chain(methods(TransformType::KE, &self.ke))
            .chain(sn)
            .chain(additional(&self.additional))
            .collect()
    }
}

fn methods(transform_type: TransformType, methods: &[KeMethod]) -> impl Iterator<Item = Transform> {
    methods.iter().map(move |method| Transform::new(transform_type, method.0))
}

fn additional(lists: &AdditionalKes) -> impl Iterator<Item = Transform> {
    let types = (0..).map_while(TransformType::additional_key_exchange);
    types.zip(lists).flat_map(|(transform_type, list)| methods(transform_type, list))
}
