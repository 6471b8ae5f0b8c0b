//! The initiator's check of an answer (RFC 7296 section 3.3.6: it "MUST check that the accepted offer is consistent with
//! one of its proposals").

use core::fmt;

use super::select::{accepts_none, is_same_additional_method, types};
use super::suite::Suite;
use super::{EspSuite, IkeSuite};
use crate::codec::{Proposal, Spi, Transform, TransformType};

/// Why an answer is not a choice from what was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerError {
    /// Not exactly one proposal.
    ProposalCount(usize),
    /// A number that was not offered, or for another protocol.
    Proposal(u8),
    /// A transform that was not offered.
    NotOffered(TransformType),
    /// Two transforms of one type.
    Repeated(TransformType),
    /// No transform of a type that was offered and is not optional.
    Missing(TransformType),
    /// One method for two additional key exchanges (RFC 9370 section 2.2.1).
    SameMethod(TransformType),
}

/// Checks the answer to an offer for an IKE SA; returns the algorithms and the responder's SPI.
pub fn accept_ike(offered: &[Proposal], answer: &[Proposal]) -> Result<(IkeSuite, Spi), AnswerError> {
    accept(offered, answer)
}

/// Checks the answer to an offer for a Child SA; returns the algorithms and the responder's SPI.
pub fn accept_esp(offered: &[Proposal], answer: &[Proposal]) -> Result<(EspSuite, Spi), AnswerError> {
    accept(offered, answer)
}

fn accept<S: Suite>(offered: &[Proposal], answer: &[Proposal]) -> Result<(S, Spi), AnswerError> {
    let [answer] = answer else {
        return Err(AnswerError::ProposalCount(answer.len()));
    };
    let offer = offered
        .iter()
        .find(|offer| offer.number == answer.number && offer.protocol == answer.protocol)
        .ok_or(AnswerError::Proposal(answer.number))?;
    check(&offer.transforms, &answer.transforms)?;
    let suite = S::from_transforms(&answer.transforms).ok_or(AnswerError::Proposal(answer.number))?;
    Ok((suite, answer.spi.clone()))
}

fn check(offered: &[Transform], answer: &[Transform]) -> Result<(), AnswerError> {
    let mut rest = answer;
    while let Some((transform, others)) = rest.split_first() {
        let transform_type = transform.transform_type;
        if !offered.contains(transform) {
            return Err(AnswerError::NotOffered(transform_type));
        }
        if others.iter().any(|other| other.transform_type == transform_type) {
            return Err(AnswerError::Repeated(transform_type));
        }
        if others.iter().any(|other| is_same_additional_method(transform, other)) {
            return Err(AnswerError::SameMethod(transform_type));
        }
        rest = others;
    }
    let is_answered = |t: TransformType| answer.iter().any(|transform| transform.transform_type == t);
    match types(offered).into_iter().find(|t| !is_answered(*t) && !accepts_none(offered, *t)) {
        Some(missing) => Err(AnswerError::Missing(missing)),
        None => Ok(()),
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProposalCount(count) => write!(f, "answer with {count} proposals"),
            Self::Proposal(number) => write!(f, "answer with proposal {number}, which was not offered"),
            Self::NotOffered(t) => write!(f, "answer with a transform {t} that was not offered"),
            Self::Repeated(t) => write!(f, "answer with two transforms {t}"),
            Self::Missing(t) => write!(f, "answer without transform {t}"),
            Self::SameMethod(t) => write!(f, "answer with the method of {t} for another key exchange too"),
        }
    }
}

impl std::error::Error for AnswerError {}
