//! Which workloads a rule fits.

use super::{
    Kind, PeerRule, email,
    spiffe::{SpiffeId, segments, split},
};
use crate::identity::PeerIdentity;

impl PeerRule {
    /// Whether the rule fits a workload.
    #[must_use]
    pub fn matches(&self, peer: &PeerIdentity) -> bool {
        match &self.0 {
            Kind::Spiffe(id) => peer.spiffe_id.as_ref() == Some(id),
            Kind::SpiffeGlob(pattern) => spiffe_id(peer).is_some_and(|id| fits(pattern, id)),
            Kind::TrustDomain(trust_domain) => {
                spiffe_id(peer).is_some_and(|id| id.trust_domain() == trust_domain)
            }
            Kind::Dns(name) => peer.dns_names.contains(name),
            Kind::DnsWildcard(suffix) => peer.dns_names.iter().any(|name| {
                name.split_once('.').is_some_and(|(first, rest)| rest == suffix && is_plain(first))
            }),
            Kind::Ip(address) => peer.ip_addresses.iter().any(|ip| ip.to_canonical() == *address),
            Kind::Email(address) => {
                let mut names = peer.email_addresses.iter();
                names.any(|name| email::normalised(name).as_ref() == Some(address))
            }
            Kind::Certificate(pin) => peer.leaf_sha256 == pin.0,
            Kind::PublicKey(pin) => peer.public_key_sha256 == pin.0,
            Kind::IssuerKey(pin) => peer.issuer_keys_sha256.contains(&pin.0),
            Kind::CommonName(name) => {
                !peer.has_alternative_names && peer.common_names == [name.as_str()]
            }
        }
    }
}

fn spiffe_id(peer: &PeerIdentity) -> Option<SpiffeId<'_>> {
    SpiffeId::parse(peer.spiffe_id.as_deref()?).ok()
}

/// Whether an ID is of the pattern's trust domain and as long, and each of its segments the pattern's. No ID has
/// a `*` of its own.
fn fits(pattern: &str, id: SpiffeId<'_>) -> bool {
    let Ok((trust_domain, path)) = split(pattern) else { return false };
    let mut pairs = segments(path).zip(id.segments());
    trust_domain == id.trust_domain()
        && segments(path).count() == id.segments().count()
        && pairs.all(|(expected, segment)| expected == "*" || expected == segment)
}

/// Whether a certificate's label is a name, not a wildcard of its own.
fn is_plain(label: &str) -> bool {
    !label.is_empty() && !label.contains('*')
}
