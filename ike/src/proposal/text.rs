//! Parsing and printing of the notation: words joined by `-`, in any order; several of one type are alternatives, best
//! first.

use core::fmt;
use core::str::FromStr;

use super::keyword::{self, ENCRYPTION, KEY_EXCHANGE, NO_ADDITIONAL, NO_KEY_EXCHANGE, PRF, SEQUENCE_NUMBERS};
use super::{AdditionalKes, Encryption, EspProposal, IkeProposal};
use crate::codec::{KeMethod, PrfId, SnId, TransformType};

/// What a proposal is for, which decides which words it may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProposalKind {
    /// An IKE SA.
    Ike,
    /// A Child SA.
    Esp,
}

/// What a proposal has to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// An encryption algorithm.
    Encryption,
    /// A pseudorandom function.
    Prf,
    /// A key exchange method.
    KeyExchange,
}

/// Why a text is not a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProposalError {
    /// A word that such a proposal does not have.
    UnknownWord {
        /// The word.
        word: String,
        /// What the proposal is for.
        kind: ProposalKind,
    },
    /// An algorithm that is there twice, maybe by another name.
    Repeated(String),
    /// Something is missing.
    Missing {
        /// What.
        what: Missing,
        /// What the proposal is for.
        kind: ProposalKind,
    },
    /// Additional key exchanges of a Child SA without a first one.
    AdditionalWithoutKeyExchange,
    /// Additional key exchanges that can only be agreed on by using one method twice (RFC 9370 section 2.2.1).
    SameMethodTwice,
}

impl FromStr for IkeProposal {
    type Err = ProposalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = ProposalKind::Ike;
        let Words { encr, prf, ke, additional, .. } = Words::parse(text, kind)?;
        let require = |what, there| if there { Ok(()) } else { Err(ProposalError::Missing { what, kind }) };
        require(Missing::Encryption, !encr.is_empty())?;
        require(Missing::Prf, !prf.is_empty())?;
        require(Missing::KeyExchange, !ke.is_empty())?;
        Ok(Self { encr, prf, ke, additional })
    }
}

impl FromStr for EspProposal {
    type Err = ProposalError;

    /// Without `esn` or `noesn` it is `noesn`, as in strongSwan.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = ProposalKind::Esp;
        let Words { encr, ke, additional, mut sn, .. } = Words::parse(text, kind)?;
        if encr.is_empty() {
            return Err(ProposalError::Missing { what: Missing::Encryption, kind });
        }
        if sn.is_empty() {
            sn.push(SnId::SEQUENTIAL_32);
        }
        let proposal = Self { encr, ke, additional, sn };
        let has_ke = proposal.ke.iter().any(|method| *method != KeMethod::NONE);
        if proposal.has_additional_key_exchanges() && !has_ke {
            return Err(ProposalError::AdditionalWithoutKeyExchange);
        }
        Ok(proposal)
    }
}

#[derive(Default)]
struct Words {
    encr: Vec<Encryption>,
    prf: Vec<PrfId>,
    ke: Vec<KeMethod>,
    additional: AdditionalKes,
    sn: Vec<SnId>,
}

impl Words {
    fn parse(text: &str, kind: ProposalKind) -> Result<Self, ProposalError> {
        let mut words = Self::default();
        for word in text.split('-') {
            if !words.add(word, kind)? {
                return Err(ProposalError::UnknownWord { word: word.into(), kind });
            }
        }
        if !has_distinct_methods(&words.additional, &mut Vec::new()) {
            return Err(ProposalError::SameMethodTwice);
        }
        Ok(words)
    }

    /// Returns false for a word that is not known.
    fn add(&mut self, word: &str, kind: ProposalKind) -> Result<bool, ProposalError> {
        if let Some(encryption) = keyword::value(ENCRYPTION, word) {
            push(&mut self.encr, encryption, word)?;
        } else if let Some(method) = keyword::value(KEY_EXCHANGE, word) {
            push(&mut self.ke, method, word)?;
        } else if let Some((index, method)) = additional(word) {
            let Some(list) = self.additional.get_mut(index) else {
                return Ok(false);
            };
            push(list, method, word)?;
        } else if let (ProposalKind::Ike, Some(prf)) = (kind, keyword::value(PRF, word)) {
            push(&mut self.prf, prf, word)?;
        } else if let (ProposalKind::Esp, Some(sn)) = (kind, keyword::value(SEQUENCE_NUMBERS, word)) {
            push(&mut self.sn, sn, word)?;
        } else if kind == ProposalKind::Esp && word == NO_KEY_EXCHANGE {
            push(&mut self.ke, KeMethod::NONE, word)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

fn push<T: PartialEq>(list: &mut Vec<T>, value: T, word: &str) -> Result<(), ProposalError> {
    if list.contains(&value) {
        return Err(ProposalError::Repeated(word.into()));
    }
    list.push(value);
    Ok(())
}

/// `ke1_mlkem768` is the first additional key exchange, index 0.
fn additional(word: &str) -> Option<(usize, KeMethod)> {
    let (number, method) = word.strip_prefix("ke")?.split_once('_')?;
    let number = ["1", "2", "3", "4", "5", "6", "7"].iter().position(|n| *n == number)?;
    let method = if method == NO_ADDITIONAL { KeMethod::NONE } else { keyword::value(KEY_EXCHANGE, method)? };
    Some((number, method))
}

/// One method can be taken from every list that is not empty without taking any but NONE twice.
fn has_distinct_methods(lists: &[Vec<KeMethod>], taken: &mut Vec<KeMethod>) -> bool {
    let Some((list, rest)) = lists.split_first() else {
        return true;
    };
    if list.is_empty() || list.contains(&KeMethod::NONE) {
        return has_distinct_methods(rest, taken);
    }
    for method in list {
        if taken.contains(method) {
            continue;
        }
        taken.push(*method);
        if has_distinct_methods(rest, taken) {
            return true;
        }
        taken.pop();
    }
    false
}

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encr = self.encr.iter().map(Encryption::to_string);
        let prf = self.prf.iter().map(|prf| named(keyword::word(PRF, prf), prf));
        write_words(f, encr.chain(prf).chain(methods(&self.ke)).chain(additional_words(&self.additional)))
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encr = self.encr.iter().map(Encryption::to_string);
        let default: &[SnId] = &[SnId::SEQUENTIAL_32];
        let sn = if self.sn == default { &[] } else { self.sn.as_slice() };
        let sn = sn.iter().map(|sn| named(keyword::word(SEQUENCE_NUMBERS, sn), sn));
        write_words(f, encr.chain(methods(&self.ke)).chain(additional_words(&self.additional)).chain(sn))
    }
}

impl fmt::Debug for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeProposal({self})")
    }
}

impl fmt::Debug for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EspProposal({self})")
    }
}

fn write_words(f: &mut fmt::Formatter<'_>, words: impl Iterator<Item = String>) -> fmt::Result {
    f.write_str(&words.collect::<Vec<_>>().join("-"))
}

fn methods(methods: &[KeMethod]) -> impl Iterator<Item = String> {
    methods.iter().map(|method| match *method {
        KeMethod::NONE => NO_KEY_EXCHANGE.to_owned(),
        _ => named(keyword::word(KEY_EXCHANGE, method), method),
    })
}

fn additional_words(additional: &AdditionalKes) -> impl Iterator<Item = String> {
    (1..=TransformType::ADDITIONAL_KEY_EXCHANGES).zip(additional).flat_map(|(number, list)| {
        list.iter().map(move |method| match *method {
            KeMethod::NONE => format!("ke{number}_{NO_ADDITIONAL}"),
            _ => format!("ke{number}_{}", named(keyword::word(KEY_EXCHANGE, method), method)),
        })
    })
}

fn named(word: Option<&'static str>, code_point: &impl fmt::Display) -> String {
    word.map_or_else(|| code_point.to_string(), str::to_owned)
}

impl fmt::Display for ProposalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownWord { word, kind } => {
                write!(f, "`{word}` is not known in {kind} proposals; known are ")?;
                write_known(f, ENCRYPTION)?;
                match kind {
                    ProposalKind::Ike => write_known(f, PRF)?,
                    ProposalKind::Esp => write_known(f, SEQUENCE_NUMBERS)?,
                }
                write_known(f, KEY_EXCHANGE)?;
                if *kind == ProposalKind::Esp {
                    write!(f, "{NO_KEY_EXCHANGE}, ")?;
                }
                write!(f, "and ke1_ to ke7_ before a key exchange method or `{NO_ADDITIONAL}`")
            }
            Self::Repeated(word) => write!(f, "`{word}` names an algorithm that is there already"),
            Self::Missing { what, kind } => {
                write!(f, "{kind} proposals need {what}, one or more of ")?;
                match what {
                    Missing::Encryption => write_known(f, ENCRYPTION)?,
                    Missing::Prf => write_known(f, PRF)?,
                    Missing::KeyExchange => write_known(f, KEY_EXCHANGE)?,
                }
                write!(f, "joined by `-`")
            }
            Self::AdditionalWithoutKeyExchange => {
                f.write_str("ke1_ to ke7_ in ESP proposals need a first key exchange method, such as x25519")
            }
            Self::SameMethodTwice => f.write_str(
                "ke1_ to ke7_ can only be agreed on by using one method twice, which is not allowed",
            ),
        }
    }
}

impl std::error::Error for ProposalError {}

impl fmt::Display for ProposalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ike => "IKE",
            Self::Esp => "ESP",
        })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encryption => "an encryption algorithm",
            Self::Prf => "a pseudorandom function",
            Self::KeyExchange => "a key exchange method",
        })
    }
}

fn write_known<T>(f: &mut fmt::Formatter<'_>, table: &[(&'static str, T)]) -> fmt::Result {
    table.iter().try_for_each(|(word, _)| write!(f, "{word}, "))
}
