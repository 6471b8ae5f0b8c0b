//! The responder's choice (RFC 7296 sections 2.7 and 3.3.6, RFC 9370 section 2.2.1).

use super::offer::Acceptable;
use super::suite::Suite;
use super::{EspProposal, EspSuite, IkeProposal, IkeSuite};
use crate::codec::{Proposal, ProtocolId, Spi, Transform, TransformType};

/// What a responder chose from an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection<S> {
    /// The algorithms.
    pub suite: S,
    /// The SPI in the proposal that was chosen.
    pub peer_spi: Spi,
    number: u8,
    protocol: ProtocolId,
    transforms: Vec<Transform>,
}

impl<S> Selection<S> {
    /// The proposal to answer with: one transform of each type offered, unmodified, and our SPI.
    pub fn answer(&self, spi: Spi) -> Proposal {
        Proposal { number: self.number, protocol: self.protocol, spi, transforms: self.transforms.clone() }
    }
}

/// Chooses for an IKE SA: our best proposal that an offer meets. `None` is NO_PROPOSAL_CHOSEN.
pub fn select_ike(offered: &[Proposal], ours: &[IkeProposal]) -> Option<Selection<IkeSuite>> {
    select(offered, ours, ProtocolId::IKE)
}

/// Chooses for a Child SA: our best proposal that an offer meets. `None` is NO_PROPOSAL_CHOSEN. In IKE_AUTH pass
/// [`EspProposal::without_key_exchange`].
pub fn select_esp(offered: &[Proposal], ours: &[EspProposal]) -> Option<Selection<EspSuite>> {
    select(offered, ours, ProtocolId::ESP)
}

fn select<P: Acceptable, S: Suite>(
    offered: &[Proposal],
    ours: &[P],
    protocol: ProtocolId,
) -> Option<Selection<S>> {
    let candidates = || offered.iter().filter(|offer| offer.protocol == protocol);
    ours.iter().map(Acceptable::transforms).find_map(|acceptable| {
        candidates().find_map(|offer| {
            let transforms = choose(&offer.transforms, &acceptable)?;
            let suite = S::from_transforms(&transforms)?;
            Some(Selection { suite, peer_spi: offer.spi.clone(), number: offer.number, protocol, transforms })
        })
    })
}

/// One transform of each type offered, our best one; `None` if a type that is offered or that we insist on has none in
/// common.
fn choose(offered: &[Transform], acceptable: &[Transform]) -> Option<Vec<Transform>> {
    let is_offered = |t: TransformType| offered.iter().any(|transform| transform.transform_type == t);
    if types(acceptable).iter().any(|t| !is_offered(*t) && !accepts_none(acceptable, *t)) {
        return None;
    }
    let mut options: Vec<Vec<&Transform>> =
        types(offered).into_iter().map(|t| common(offered, acceptable, t)).collect::<Option<_>>()?;
    options.sort_by_key(|list| !list.first().is_some_and(|transform| is_additional(transform)));
    let mut chosen = Vec::with_capacity(options.len());
    combine(&options, &mut chosen).then(|| {
        chosen.sort_by_key(|transform| transform.transform_type);
        chosen.into_iter().cloned().collect()
    })
}

/// The transforms of a type that both accept, our best first; `None` if there is none. A transform with an attribute
/// or ID that we do not understand equals none of ours, and a type that we do not understand has none.
fn common<'a>(
    offered: &'a [Transform],
    acceptable: &[Transform],
    transform_type: TransformType,
) -> Option<Vec<&'a Transform>> {
    let ours = acceptable.iter().filter(|transform| transform.transform_type == transform_type);
    let mut common: Vec<&Transform> =
        ours.filter_map(|ours| offered.iter().find(|theirs| *theirs == ours)).collect();
    if types(acceptable).iter().all(|t| *t != transform_type) && may_be_none(transform_type) {
        common.extend(offered.iter().find(|theirs| **theirs == Transform::new(transform_type, 0)));
    }
    (!common.is_empty()).then_some(common)
}

/// Takes the first option of each list such that no method is used for two additional key exchanges, whose lists come
/// first because only they can fail. What the lists hold is ours, so the search is as small as our configuration.
fn combine<'a>(options: &[Vec<&'a Transform>], chosen: &mut Vec<&'a Transform>) -> bool {
    let Some(candidates) = options.get(chosen.len()) else {
        return true;
    };
    for candidate in candidates {
        if chosen.iter().any(|taken| is_same_additional_method(taken, candidate)) {
            continue;
        }
        chosen.push(candidate);
        if combine(options, chosen) {
            return true;
        }
        chosen.pop();
    }
    false
}

/// Two additional key exchanges with one method, which no answer may contain (RFC 9370 section 2.2.1).
pub(super) fn is_same_additional_method(a: &Transform, b: &Transform) -> bool {
    is_additional(a) && is_additional(b) && a.id == b.id && a.id != 0 && a.attributes == b.attributes
}

fn is_additional(transform: &Transform) -> bool {
    transform.transform_type.additional_key_exchange_index().is_some()
}

/// A type that may be left out of a proposal if the only value acceptable is NONE (RFC 7296 section 3.3.3).
fn may_be_none(transform_type: TransformType) -> bool {
    matches!(transform_type, TransformType::INTEG | TransformType::KE)
        || transform_type.additional_key_exchange_index().is_some()
}

/// The type may be left out of an answer.
pub(super) fn accepts_none(acceptable: &[Transform], transform_type: TransformType) -> bool {
    may_be_none(transform_type)
        && acceptable.iter().any(|transform| transform.transform_type == transform_type && transform.id == 0)
}

/// The transform types of a proposal, each once, in their order.
pub(super) fn types(transforms: &[Transform]) -> Vec<TransformType> {
    let mut types = Vec::new();
    for transform in transforms {
        if !types.contains(&transform.transform_type) {
            types.push(transform.transform_type);
        }
    }
    types
}
