//! The Security Association payload: proposals, transforms, attributes (RFC 7296 section 3.3).

use super::code_point::{AttributeType, ProtocolId, TransformType};
use super::error::{DecodeError, EncodeError, Malformed, TooMany};
use super::limits::{MAX_ATTRIBUTES, MAX_PROPOSALS, MAX_TRANSFORMS};
use super::reader::Reader;
use super::spi::Spi;
use super::writer::{Writer, fit_u16};

/// SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecurityAssociation {
    /// Proposals, best first. Their numbers count up by one.
    pub proposals: Vec<Proposal>,
}

/// One proposal (RFC 7296 section 3.3.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Proposal Num, from 1.
    pub number: u8,
    /// The protocol it is for.
    pub protocol: ProtocolId,
    /// The sender's SPI; none in IKE_SA_INIT.
    pub spi: Spi,
    /// Transforms: one of each type is to be chosen.
    pub transforms: Vec<Transform>,
}

/// One transform (RFC 7296 section 3.3.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transform {
    /// What it is an algorithm for.
    pub transform_type: TransformType,
    /// Transform ID; its meaning depends on the type.
    pub id: u16,
    /// Transform Attributes.
    pub attributes: Vec<TransformAttribute>,
}

/// One transform attribute (RFC 7296 section 3.3.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransformAttribute {
    /// Attribute Type, 15 bits.
    pub attribute_type: AttributeType,
    /// Attribute Value.
    pub value: AttributeValue,
}

/// The value of an attribute in the format it has on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttributeValue {
    /// Type/Value: 16 bits.
    Short(u16),
    /// Type/Length/Value.
    Long(Box<[u8]>),
}

impl Transform {
    /// A transform without attributes.
    pub const fn new(transform_type: TransformType, id: u16) -> Self {
        Self { transform_type, id, attributes: Vec::new() }
    }

    /// A transform with a Key Length attribute in bits.
    pub fn with_key_length(transform_type: TransformType, id: u16, bits: u16) -> Self {
        let attribute = TransformAttribute {
            attribute_type: AttributeType::KEY_LENGTH,
            value: AttributeValue::Short(bits),
        };
        Self { transform_type, id, attributes: vec![attribute] }
    }
}

impl SecurityAssociation {
    const MORE_PROPOSALS: u8 = 2;

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut proposals: Vec<Proposal> = Vec::new();
        let mut transforms_left = MAX_TRANSFORMS;
        loop {
            if proposals.len() == MAX_PROPOSALS {
                return Err(reader.error(Malformed::TooMany(TooMany::Proposals)));
            }
            let mut body = substructure(reader, Self::MORE_PROPOSALS, "Proposal")?;
            let at_number = body.clone();
            let proposal = Proposal::decode(&mut body, &mut transforms_left)?;
            let expected =
                proposals.last().map_or(proposal.number.max(1), |last| last.number.saturating_add(1));
            if proposal.number != expected {
                let found = proposal.number;
                return Err(at_number.error(Malformed::ProposalNumber { expected, found }));
            }
            proposals.push(proposal);
            if reader.is_empty() {
                return Ok(Self { proposals });
            }
        }
    }

    pub(super) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let transforms: usize = self.proposals.iter().map(|proposal| proposal.transforms.len()).sum();
        if self.proposals.len() > MAX_PROPOSALS {
            return Err(EncodeError::TooMany(TooMany::Proposals));
        }
        if transforms > MAX_TRANSFORMS {
            return Err(EncodeError::TooMany(TooMany::Transforms));
        }
        for (index, proposal) in self.proposals.iter().enumerate() {
            let more = if index + 1 < self.proposals.len() { Self::MORE_PROPOSALS } else { 0 };
            proposal.encode(writer, more)?;
        }
        Ok(())
    }
}

impl Proposal {
    const MORE_TRANSFORMS: u8 = 3;

    fn decode(reader: &mut Reader<'_>, transforms_left: &mut usize) -> Result<Self, DecodeError> {
        let number = reader.u8("Proposal Num")?;
        let protocol = ProtocolId(reader.u8("Protocol ID")?);
        let at_spi_size = reader.clone();
        let spi_size = reader.u8("SPI Size")?;
        let count = usize::from(reader.u8("Num Transforms")?);
        let fits = match protocol {
            ProtocolId::IKE => matches!(spi_size, 0 | 8),
            ProtocolId::ESP | ProtocolId::AH => spi_size == 4,
            _ => true,
        };
        if !fits {
            return Err(at_spi_size.error(Malformed::SpiSize { protocol, size: spi_size }));
        }
        let spi = Spi::decode(reader, spi_size)?;
        *transforms_left = transforms_left
            .checked_sub(count)
            .ok_or_else(|| at_spi_size.error(Malformed::TooMany(TooMany::Transforms)))?;
        if count == 0 {
            return Err(reader.error(Malformed::Empty("transforms")));
        }
        let mut transforms = Vec::with_capacity(count);
        for _ in 0..count {
            let mut body = substructure(reader, Self::MORE_TRANSFORMS, "Transform")?;
            transforms.push(Transform::decode(&mut body)?);
        }
        reader.finish("last transform")?;
        Ok(Self { number, protocol, spi, transforms })
    }

    fn encode(&self, writer: &mut Writer, more: u8) -> Result<(), EncodeError> {
        writer.u8(more);
        writer.u8(0);
        let length = writer.counted(2);
        writer.u8(self.number);
        writer.u8(self.protocol.0);
        writer.u8(self.spi.size()?);
        writer
            .u8(u8::try_from(self.transforms.len()).map_err(|_| EncodeError::TooMany(TooMany::Transforms))?);
        self.spi.encode(writer);
        for (index, transform) in self.transforms.iter().enumerate() {
            let more = if index + 1 < self.transforms.len() { Self::MORE_TRANSFORMS } else { 0 };
            transform.encode(writer, more)?;
        }
        writer.close(length, "proposal")
    }
}

impl Transform {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let transform_type = TransformType(reader.u8("Transform Type")?);
        reader.u8("RESERVED")?;
        let id = reader.u16("Transform ID")?;
        let mut attributes = Vec::new();
        while !reader.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(reader.error(Malformed::TooMany(TooMany::Attributes)));
            }
            attributes.push(TransformAttribute::decode(reader)?);
        }
        Ok(Self { transform_type, id, attributes })
    }

    fn encode(&self, writer: &mut Writer, more: u8) -> Result<(), EncodeError> {
        if self.attributes.len() > MAX_ATTRIBUTES {
            return Err(EncodeError::TooMany(TooMany::Attributes));
        }
        writer.u8(more);
        writer.u8(0);
        let length = writer.counted(2);
        writer.u8(self.transform_type.0);
        writer.u8(0);
        writer.u16(self.id);
        for attribute in &self.attributes {
            attribute.encode(writer)?;
        }
        writer.close(length, "transform")
    }
}

impl TransformAttribute {
    const SHORT: u16 = 0x8000;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let format_and_type = reader.u16("Attribute Type")?;
        let attribute_type = AttributeType(format_and_type & !Self::SHORT);
        let value_or_len = reader.u16("Attribute Value or Length")?;
        let value = if format_and_type & Self::SHORT != 0 {
            AttributeValue::Short(value_or_len)
        } else {
            AttributeValue::Long(reader.take(value_or_len.into(), "Attribute Value")?.into())
        };
        Ok(Self { attribute_type, value })
    }

    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let attribute_type = self.attribute_type.0 & !Self::SHORT;
        match &self.value {
            AttributeValue::Short(value) => {
                writer.u16(attribute_type | Self::SHORT);
                writer.u16(*value);
            }
            AttributeValue::Long(value) => {
                writer.u16(attribute_type);
                writer.u16(fit_u16(value.len(), "transform attribute")?);
                writer.bytes(value);
            }
        }
        Ok(())
    }
}

/// Reads the header that proposals and transforms share and returns their content. Last Substruc says `more` if
/// another one follows within what contains it, else 0.
fn substructure<'a>(
    reader: &mut Reader<'a>,
    more: u8,
    what: &'static str,
) -> Result<Reader<'a>, DecodeError> {
    const HEADER_LEN: usize = 4;
    let start = reader.clone();
    let last_substruc = reader.u8("Last Substruc")?;
    reader.u8("RESERVED")?;
    let declared = usize::from(reader.u16("substructure length")?);
    let len =
        declared.checked_sub(HEADER_LEN).ok_or_else(|| start.error(Malformed::Length { what, declared }))?;
    let body = reader.sub(len, what)?;
    let expected = if reader.is_empty() { 0 } else { more };
    if last_substruc != expected {
        return Err(start.error(Malformed::LastSubstruc(last_substruc)));
    }
    Ok(body)
}
