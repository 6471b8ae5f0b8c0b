//! SPIs in payloads, which come with a size of their own.

use super::error::{DecodeError, EncodeError};
use super::reader::Reader;
use super::writer::{Writer, fit_u8};

/// An SPI field of a Proposal, Notify or Delete payload.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Spi {
    /// SPI Size 0: none, or that of the IKE header.
    #[default]
    None,
    /// Four octets, of ESP or AH.
    Child(u32),
    /// Eight octets, of IKE.
    Ike(u64),
    /// A size that neither ESP, AH nor IKE has.
    Other(Box<[u8]>),
}

impl Spi {
    /// The SPI of a Child SA, if it is one.
    pub const fn child(&self) -> Option<u32> {
        match self {
            Self::Child(spi) => Some(*spi),
            _ => None,
        }
    }

    /// The SPI of an IKE SA, if it is one.
    pub const fn ike(&self) -> Option<u64> {
        match self {
            Self::Ike(spi) => Some(*spi),
            _ => None,
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>, size: u8) -> Result<Self, DecodeError> {
        Ok(match size {
            0 => Self::None,
            4 => Self::Child(reader.u32("SPI")?),
            8 => Self::Ike(reader.u64("SPI")?),
            _ => Self::Other(reader.take(size.into(), "SPI")?.into()),
        })
    }

    pub(super) fn size(&self) -> Result<u8, EncodeError> {
        match self {
            Self::None => Ok(0),
            Self::Child(_) => Ok(4),
            Self::Ike(_) => Ok(8),
            Self::Other(octets) => fit_u8(octets.len(), "SPI"),
        }
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        match self {
            Self::None => {}
            Self::Child(spi) => writer.u32(*spi),
            Self::Ike(spi) => writer.u64(*spi),
            Self::Other(octets) => writer.bytes(octets),
        }
    }
}
