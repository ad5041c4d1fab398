//! Why a time-stamp request is refused, as RFC 3161 section 2.4.2 says it.

use der::{
    Encode as _, Sequence,
    asn1::{BitString, Utf8StringRef},
};

/// `PKIStatus` *rejection*.
const REJECTION: u8 = 2;

/// A refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timestamp request is not acceptable: {problem}")]
pub struct StampRefusal {
    /// What is wrong with it.
    pub problem: &'static str,
    /// Which kind of failure that is.
    pub failure: Failure,
}

/// `PKIFailureInfo`: the number of its bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A hash that is not known here.
    BadAlgorithm = 0,
    /// It cannot be answered as it is.
    BadRequest = 2,
    /// It has not the form of a request.
    BadDataFormat = 5,
    /// The clock is outside of the time-stamp certificate's life.
    TimeNotAvailable = 14,
    /// Another policy than ours.
    UnacceptedPolicy = 15,
    /// An extension.
    UnacceptedExtension = 16,
}

/// `PKIStatusInfo` with everything.
#[derive(Sequence)]
struct StatusInfo<'a> {
    status: u8,
    text: Vec<Utf8StringRef<'a>>,
    failure: BitString,
}

/// `TimeStampResp` without a token.
#[derive(Sequence)]
struct Rejected<'a> {
    status: StatusInfo<'a>,
}

impl StampRefusal {
    /// A refusal of this kind; the client is told the problem.
    pub const fn new(failure: Failure, problem: &'static str) -> Self {
        Self { problem, failure }
    }

    /// A whole `TimeStampResp`, DER.
    ///
    /// # Errors
    /// None that happens: what is encoded is short and fixed.
    pub fn reply(&self) -> der::Result<Vec<u8>> {
        let info = StatusInfo {
            status: REJECTION,
            text: vec![Utf8StringRef::new(self.problem)?],
            failure: self.failure.bits()?,
        };
        Rejected { status: info }.to_der()
    }
}

impl Failure {
    /// A named bit string: no trailing zero bits (X.690 section 11.2.2).
    fn bits(self) -> der::Result<BitString> {
        #[allow(clippy::as_conversions, reason = "the discriminants are the bits' numbers")]
        let bit = self as u8;
        let (byte, within) = (usize::from(bit / 8), bit % 8);
        let mut bytes = vec![0; byte + 1];
        if let Some(last) = bytes.last_mut() {
            *last = 0x80 >> within;
        }
        BitString::new(7 - within, bytes)
    }
}
