//! The Configuration payload (RFC 7296 section 3.15).

use std::borrow::Cow;

use super::code_point::{CfgAttributeType, CfgType};
use super::error::{DecodeError, EncodeError, Malformed, TooMany};
use super::limits::MAX_CONFIGURATION_ATTRIBUTES;
use super::reader::Reader;
use super::writer::{Writer, fit_u16};

/// CP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration<'a> {
    /// CFG Type.
    pub cfg_type: CfgType,
    /// Configuration Attributes.
    pub attributes: Vec<ConfigurationAttribute<'a>>,
}

/// One Configuration Attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigurationAttribute<'a> {
    /// Attribute Type, 15 bits.
    pub attribute_type: CfgAttributeType,
    /// Value; empty in a request for any.
    pub value: Cow<'a, [u8]>,
}

const TYPE_BITS: u16 = 0x7fff;

impl<'a> Configuration<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let cfg_type = CfgType(reader.u8("CFG Type")?);
        reader.take(3, "RESERVED")?;
        let mut attributes = Vec::new();
        while !reader.is_empty() {
            if attributes.len() == MAX_CONFIGURATION_ATTRIBUTES {
                return Err(reader.error(Malformed::TooMany(TooMany::ConfigurationAttributes)));
            }
            let attribute_type = CfgAttributeType(reader.u16("Attribute Type")? & TYPE_BITS);
            let len = reader.u16("Attribute Length")?;
            let value = reader.take(len.into(), "Attribute Value")?.into();
            attributes.push(ConfigurationAttribute { attribute_type, value });
        }
        Ok(Self { cfg_type, attributes })
    }

    pub(super) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        if self.attributes.len() > MAX_CONFIGURATION_ATTRIBUTES {
            return Err(EncodeError::TooMany(TooMany::ConfigurationAttributes));
        }
        writer.u8(self.cfg_type.0);
        writer.bytes(&[0; 3]);
        for attribute in &self.attributes {
            writer.u16(attribute.attribute_type.0 & TYPE_BITS);
            writer.u16(fit_u16(attribute.value.len(), "configuration attribute")?);
            writer.bytes(&attribute.value);
        }
        Ok(())
    }
}
