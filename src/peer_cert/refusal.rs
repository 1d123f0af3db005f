//! Why a peer is refused, and the answer that says so.

use crate::reject::{Rejection, RejectionKind};

/// Why a peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It has shown no certificate.
    Missing,
    /// Its certificate can't be read, or breaks the rules for names.
    Unreadable,
    /// What a trusted proxy forwarded is not what it should be.
    Malformed,
    /// A trusted proxy forwarded a certificate that it did not verify.
    Unverified,
    /// No authority that counts for its names vouches for its certificate, or not for this use.
    Untrusted,
    /// Its certificate, or that of an authority on its path, was revoked.
    Revoked,
    /// Whether it was revoked can't be told now. Our fault.
    RevocationUnknown,
    /// Its certificate is not valid at this time.
    Expired,
    /// A deny rule fits.
    Denied,
    /// No allow rule fits.
    NotAllowed,
    /// The request is for another host than the connection.
    Misdirected,
    /// The request came before the handshake was done, and may be a replay.
    TooEarly,
}

impl Why {
    /// The texts name nobody, and do not tell a peer on a deny list from one that no list knows.
    pub(super) fn rejection(self) -> Rejection {
        let (kind, message) = match self {
            Self::Missing => {
                (RejectionKind::Unauthenticated, "This service asks for a client certificate.")
            }
            Self::Unreadable | Self::Unverified | Self::Untrusted | Self::Revoked => {
                (RejectionKind::Unauthenticated, "The client certificate can't be used.")
            }
            Self::Malformed => (
                RejectionKind::MalformedCredential,
                "The client certificate was forwarded in a form that can't be read.",
            ),
            Self::RevocationUnknown => (
                RejectionKind::Unavailable,
                "Client certificates cannot be verified at the moment.",
            ),
            Self::Expired => (
                RejectionKind::Unauthenticated,
                "The client certificate is not valid at this time.",
            ),
            Self::Denied | Self::NotAllowed => {
                (RejectionKind::Forbidden, "This client may not use this service.")
            }
            Self::Misdirected => (
                RejectionKind::Misdirected,
                "The request is for another host than its connection was made for.",
            ),
            Self::TooEarly => (
                RejectionKind::TooEarly,
                "The request may be a replay: send it again once the handshake is done.",
            ),
        };
        Rejection::new(kind, self.code(), message)
    }

    /// What the answer, metrics and events call it.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Missing => "client_certificate_required",
            Self::Unreadable => "client_certificate_invalid",
            Self::Malformed => "client_certificate_malformed",
            Self::Unverified | Self::Untrusted => "client_certificate_untrusted",
            Self::Revoked => "client_certificate_revoked",
            Self::RevocationUnknown => "client_certificate_unverifiable",
            Self::Expired => "client_certificate_expired",
            Self::Denied | Self::NotAllowed => "client_not_allowed",
            Self::Misdirected => "misdirected_request",
            Self::TooEarly => "too_early",
        }
    }
}
