//! Why a packet was not sealed or opened; small values, each with its drop reason.

use core::fmt;

use portcullis_common::DropReason;

/// Why a packet was not sealed. Nothing was sent and no sequence number was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealError {
    /// The buffer has no room for header, IV, padding or ICV around the payload.
    NoRoom,
    /// Every sequence number was used; they never wrap (RFC 4303 section 3.3.3).
    SequenceExhausted {
        /// True once in the life of the SA: the time to tell the control plane.
        first: bool,
    },
    /// A hard lifetime was reached.
    LifetimeExpired {
        /// True once in the life of the SA, and only if no packet reported it before.
        first: bool,
    },
}

/// Why a packet was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// Shorter than the smallest ESP packet of the algorithm.
    TooShort,
    /// The packet names another SPI.
    WrongSpi,
    /// Below the replay window, or seen already (RFC 4303 section 3.4.3).
    Replay,
    /// The ICV is wrong (RFC 4303 section 3.4.4.2). With ESN also every packet below the replay window: its
    /// number is taken for one of the next 2^32 (RFC 4303 appendix A2.2).
    IcvFailure,
    /// The padding is longer than the packet or does not hold 1, 2, 3, ... (RFC 4303 section 2.4).
    BadPadding,
    /// A hard lifetime was reached.
    LifetimeExpired {
        /// True once in the life of the SA, and only if no packet reported it before.
        first: bool,
    },
}

impl From<SealError> for DropReason {
    fn from(error: SealError) -> Self {
        match error {
            SealError::NoRoom => Self::TooBig,
            SealError::SequenceExhausted { .. } => Self::SequenceExhausted,
            SealError::LifetimeExpired { .. } => Self::LifetimeExpired,
        }
    }
}

impl From<OpenError> for DropReason {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::TooShort => Self::EspTooShort,
            OpenError::WrongSpi => Self::UnknownSpi,
            OpenError::Replay => Self::Replay,
            OpenError::IcvFailure => Self::IcvFailure,
            OpenError::BadPadding => Self::BadPadding,
            OpenError::LifetimeExpired { .. } => Self::LifetimeExpired,
        }
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DropReason::from(*self).label())
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DropReason::from(*self).label())
    }
}

impl core::error::Error for SealError {}
impl core::error::Error for OpenError {}
