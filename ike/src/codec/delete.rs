//! The Delete payload (RFC 7296 section 3.11).

use super::code_point::ProtocolId;
use super::error::{DecodeError, EncodeError, Malformed, TooMany};
use super::limits::MAX_SPIS;
use super::reader::Reader;
use super::writer::{Writer, fit_u16};

/// What the sender has removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delete {
    /// The IKE SA of the message.
    Ike,
    /// Child SAs, by the SPIs of the sender's inbound side.
    Child {
        /// ESP or AH.
        protocol: ProtocolId,
        /// Their SPIs.
        spis: Vec<u32>,
    },
}

impl Delete {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let protocol = ProtocolId(reader.u8("Protocol ID")?);
        let at_size = reader.clone();
        let size = reader.u8("SPI Size")?;
        let count = usize::from(reader.u16("Num of SPIs")?);
        match (protocol, size) {
            (ProtocolId::IKE, 0) => Ok(Self::Ike),
            (ProtocolId::ESP | ProtocolId::AH, 4) => {
                if count > MAX_SPIS {
                    return Err(at_size.error(Malformed::TooMany(TooMany::Spis)));
                }
                let spis = (0..count).map(|_| reader.u32("SPI")).collect::<Result<_, _>>()?;
                Ok(Self::Child { protocol, spis })
            }
            _ => Err(at_size.error(Malformed::SpiSize { protocol, size })),
        }
    }

    pub(super) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Ike => {
                writer.u8(ProtocolId::IKE.0);
                writer.u8(0);
                writer.u16(0);
            }
            Self::Child { protocol, spis } => {
                if spis.len() > MAX_SPIS {
                    return Err(EncodeError::TooMany(TooMany::Spis));
                }
                writer.u8(protocol.0);
                writer.u8(4);
                writer.u16(fit_u16(spis.len(), "SPIs")?);
                spis.iter().for_each(|spi| writer.u32(*spi));
            }
        }
        Ok(())
    }
}
