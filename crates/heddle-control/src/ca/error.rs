//! Why a certificate was not made, or not believed.

use heddle_model::timestamp;

/// What is wrong. Nothing in it shows any part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// Text that was given cannot be read.
    #[error("`{part}`: {reason}")]
    Unreadable {
        /// Which: a key of the Secret.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Key and certificate belong to different authorities.
    #[error("`ca.key` is not the key of the first certificate in `ca.crt`, {subject}")]
    ForeignKey {
        /// The certificate's.
        subject: String,
    },
    /// A certificate that may not sign others.
    #[error("the first certificate in `ca.crt`, {subject}, may not sign others: {reason}")]
    NoAuthority {
        /// The certificate's.
        subject: String,
        /// What it lacks.
        reason: String,
    },
    /// What it signs is not believed by those who believe the roots.
    #[error(
        "what `ca.crt` signs is not believed by those who believe `root.crt`: {0}; put into `ca.crt` the issuing certificate and then those between it and the root, and the root into `root.crt`"
    )]
    Chain(String),
    /// A certificate of the authority is past its time.
    #[error("{what} expired at {}", timestamp::format(*.at))]
    Expired {
        /// Whose.
        what: String,
        /// When, seconds of Unix time.
        at: u64,
    },
    /// The time of a certificate of the authority has not come.
    #[error("{what} is valid from {} on only: is this machine's clock right?", timestamp::format(*.at))]
    NotYetValid {
        /// Whose.
        what: String,
        /// When, seconds of Unix time.
        at: u64,
    },
    /// The request for a certificate is none.
    #[error("the request for a certificate cannot be used: {0}")]
    Request(String),
    /// Nobody may be called so.
    #[error("no certificate can be made for {0}")]
    Name(String),
    /// Somebody shows a certificate that does not say who they are.
    #[error("the certificate shown is not believed: {0}")]
    Peer(String),
    /// The cryptography refused.
    #[error("no certificate could be made: {0}")]
    Make(String),
}
