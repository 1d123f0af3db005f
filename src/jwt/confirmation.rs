//! Whether the sender has the key that a token is bound to: the claim `cnf` (RFC 7800).

use super::{Facts, Reason, resource_server::Inner};
use crate::identity::UserIdentity;

/// Holds a verified token's `cnf` against the request. None is enforced, so none is believed:
/// RFC 8705 and RFC 9449 tokens are worth nothing without their key, and taken as bearer tokens they
/// would be worth it to any thief.
pub(crate) async fn check(
    _server: &Inner,
    _facts: &Facts,
    user: &UserIdentity,
) -> Result<(), Reason> {
    if user.claims().contains("cnf") { Err(Reason::Bound) } else { Ok(()) }
}
