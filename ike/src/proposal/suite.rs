//! What two sides agreed on: exactly one algorithm of each type.

use core::fmt;

use super::keyword::{self, ENCRYPTION, KEY_EXCHANGE, PRF};
use crate::codec::{AttributeType, AttributeValue, EncrId, KeMethod, PrfId, SnId, Transform, TransformType};

/// An encryption algorithm with its key length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Encryption {
    /// Transform ID.
    pub id: EncrId,
    /// Key Length attribute in bits; `None` for ciphers whose key has one length (RFC 7296 section 3.3.5).
    pub key_bits: Option<u16>,
}

/// One additional key exchange (RFC 9370).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AdditionalKe {
    /// 1 to 7, as in ADDKE1 to ADDKE7.
    pub number: u8,
    /// Its method, never NONE.
    pub method: KeMethod,
}

/// The algorithms of an IKE SA.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IkeSuite {
    /// Cipher of the Encrypted payload.
    pub encr: Encryption,
    /// Pseudorandom function.
    pub prf: PrfId,
    /// Method of the first key exchange.
    pub ke: KeMethod,
    /// Additional key exchanges in the order in which they take place.
    pub additional: Vec<AdditionalKe>,
}

/// The algorithms of a Child SA.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EspSuite {
    /// Cipher.
    pub encr: Encryption,
    /// Method of the key exchange in CREATE_CHILD_SA, if there is one.
    pub ke: Option<KeMethod>,
    /// Additional key exchanges in the order in which they take place.
    pub additional: Vec<AdditionalKe>,
    /// Sequence numbers.
    pub sn: SnId,
}

impl Encryption {
    pub(super) fn to_transform(self) -> Transform {
        match self.key_bits {
            None => Transform::new(TransformType::ENCR, self.id.0),
            Some(bits) => Transform::with_key_length(TransformType::ENCR, self.id.0, bits),
        }
    }

    fn from_transform(transform: &Transform) -> Option<Self> {
        let key_bits = match transform.attributes.as_slice() {
            [] => None,
            [attribute] => match (attribute.attribute_type, &attribute.value) {
                (AttributeType::KEY_LENGTH, AttributeValue::Short(bits)) => Some(*bits),
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { id: EncrId(transform.id), key_bits })
    }
}

/// A suite that chosen transforms make.
pub(super) trait Suite: Sized {
    /// `None` if a type is missing that such a suite must have.
    fn from_transforms(chosen: &[Transform]) -> Option<Self>;
}

impl Suite for IkeSuite {
    fn from_transforms(chosen: &[Transform]) -> Option<Self> {
        Some(Self {
            encr: find(chosen, TransformType::ENCR).and_then(Encryption::from_transform)?,
            prf: find(chosen, TransformType::PRF).map(|transform| PrfId(transform.id))?,
            ke: method(chosen, TransformType::KE)?,
            additional: additional(chosen),
        })
    }
}

impl Suite for EspSuite {
    fn from_transforms(chosen: &[Transform]) -> Option<Self> {
        Some(Self {
            encr: find(chosen, TransformType::ENCR).and_then(Encryption::from_transform)?,
            ke: method(chosen, TransformType::KE),
            additional: additional(chosen),
            sn: find(chosen, TransformType::SN).map(|transform| SnId(transform.id))?,
        })
    }
}

fn find(chosen: &[Transform], transform_type: TransformType) -> Option<&Transform> {
    chosen.iter().find(|transform| transform.transform_type == transform_type)
}

fn method(chosen: &[Transform], transform_type: TransformType) -> Option<KeMethod> {
    find(chosen, transform_type).map(|transform| KeMethod(transform.id)).filter(|m| *m != KeMethod::NONE)
}

fn additional(chosen: &[Transform]) -> Vec<AdditionalKe> {
    let numbered = (1..).zip((0..).map_while(TransformType::additional_key_exchange));
    numbered.filter_map(|(number, t)| Some(AdditionalKe { number, method: method(chosen, t)? })).collect()
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (keyword::word(ENCRYPTION, self), self.key_bits) {
            (Some(word), _) => f.write_str(word),
            (None, Some(bits)) => write!(f, "{}_{bits}", self.id),
            (None, None) => write!(f, "{}", self.id),
        }
    }
}

/// In proposal notation.
impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encr)?;
        match keyword::word(PRF, &self.prf) {
            Some(word) => write!(f, "-{word}")?,
            None => write!(f, "-{}", self.prf)?,
        }
        write_method(f, "-", self.ke)?;
        self.additional.iter().try_for_each(|ke| write_method(f, &format!("-ke{}_", ke.number), ke.method))
    }
}

/// In proposal notation.
impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encr)?;
        self.ke.map_or(Ok(()), |ke| write_method(f, "-", ke))?;
        self.additional
            .iter()
            .try_for_each(|ke| write_method(f, &format!("-ke{}_", ke.number), ke.method))?;
        if self.sn == SnId::PARTIAL_64 { f.write_str("-esn") } else { Ok(()) }
    }
}

fn write_method(f: &mut fmt::Formatter<'_>, before: &str, method: KeMethod) -> fmt::Result {
    match keyword::word(KEY_EXCHANGE, &method) {
        Some(word) => write!(f, "{before}{word}"),
        None => write!(f, "{before}{method}"),
    }
}
