//! Credentials that are no JWTs and no API keys, which `AnyOf` has told apart: opaque tokens.

use super::{Facts, resource_server::Inner, service::Verdict};

/// Whose the credential is, if it is of another kind than a JWT. There are no other kinds yet.
pub(crate) async fn other(_server: &Inner, _facts: &Facts) -> Option<Verdict> {
    None
}
