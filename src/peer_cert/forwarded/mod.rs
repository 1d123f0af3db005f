//! The certificate of a client that a proxy forwarded in headers.
//!
//! A header is believed only from a trusted proxy, and read in one dialect only. What is not exactly as that dialect
//! has it is malformed, never absent: else a client could write itself out of its own certificate.

mod client_cert;
mod names;
mod pem;
mod proxy_trust;
mod read;
mod source;
mod xfcc;

#[cfg(any(test, feature = "test-util"))]
pub use self::read::read_forwarded;
pub(in crate::peer_cert) use self::read::{ForwardedChain, Unbelievable, strip, strip_same};
pub use self::{proxy_trust::ProxyTrust, source::Forwarded};

/// Why a header can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed(&'static str);

/// What the headers may hold together, in bytes.
const MAX_BYTES: usize = 128 * 1024;
/// What one certificate may take as it is written, in bytes.
const MAX_CERTIFICATE: usize = 16 * 1024;
/// How many certificates there may be, with the leaf.
const MAX_CERTIFICATES: usize = 8;

#[cfg(test)]
mod tests;
