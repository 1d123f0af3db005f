//! Rules: which workloads a certificate is good for.

use super::{
    dns,
    spiffe::{SpiffeId, check_segment, check_trust_domain, segments, split},
};
use crate::{BuildError, identity::PeerIdentity};

/// Tells workloads by their certificates. Whole names and whole segments only: no rule compares the
/// beginning or the end of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRule(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Spiffe(String),
    SpiffeGlob {
        trust_domain: String,
        segments: Vec<Segment>,
    },
    TrustDomain(String),
    Dns(String),
    /// What stands after `*.`.
    DnsWildcard(String),
    Sha256([u8; 32]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Any,
    Only(String),
}

impl PeerRule {
    /// The workload of this SPIFFE ID, such as `spiffe://prod.example/ns/edge/sa/gateway`.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for what is no SPIFFE ID, or names a trust domain but no workload.
    pub fn spiffe(id: &str) -> Result<Self, BuildError> {
        let invalid = |reason| BuildError::invalid("SPIFFE ID", reason);
        if SpiffeId::parse(id).map_err(invalid)?.is_trust_domain() {
            return Err(invalid("it has no path: for all of a trust domain, use `trust_domain`"));
        }
        Ok(Self(Kind::Spiffe(id.to_owned())))
    }

    /// The workloads whose SPIFFE ID fits a pattern, such as `spiffe://prod.example/ns/*/sa/router`.
    /// `*` stands for exactly one whole segment of the path, and never for the trust domain.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for what would be no SPIFFE ID even with its `*` filled in, for a `*`
    /// that is not a whole segment, and for a pattern without a path.
    pub fn spiffe_glob(pattern: &str) -> Result<Self, BuildError> {
        let invalid = |reason| BuildError::invalid("SPIFFE pattern", reason);
        let (trust_domain, path) = split(pattern).map_err(invalid)?;
        check_trust_domain(trust_domain).map_err(invalid)?;
        if path.is_empty() {
            return Err(invalid("it has no path: for all of a trust domain, use `trust_domain`"));
        }
        let segment = |text: &str| match text {
            "*" => Ok(Segment::Any),
            _ if text.contains('*') => Err("a `*` must be a whole segment"),
            _ => check_segment(text).map(|()| Segment::Only(text.to_owned())),
        };
        let segments = segments(path).map(segment).collect::<Result<_, _>>().map_err(invalid)?;
        Ok(Self(Kind::SpiffeGlob { trust_domain: trust_domain.to_owned(), segments }))
    }

    /// Every workload of a trust domain, given as `prod.example` or `spiffe://prod.example`.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for what is no trust domain, or has a path.
    pub fn trust_domain(trust_domain: &str) -> Result<Self, BuildError> {
        let name = trust_domain.strip_prefix("spiffe://").unwrap_or(trust_domain);
        check_trust_domain(name).map_err(|reason| BuildError::invalid("trust domain", reason))?;
        Ok(Self(Kind::TrustDomain(name.to_owned())))
    }

    /// Workloads by a DNS name in their certificate: `gateway.edge.svc`, or `*.edge.svc` for any
    /// one label in the place of the `*`. ASCII case does not count.
    ///
    /// Only the rule's wildcard stands for anything. A certificate's own, say `*.edge.svc`, is a
    /// name that no rule fits.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for what is no DNS name: with a trailing dot, an IP address, not
    /// ASCII (write the `xn--` form), or with a `*` that is not the whole first label.
    pub fn dns(name: &str) -> Result<Self, BuildError> {
        let (suffix, wildcard) = match name.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (name, false),
        };
        let known = dns::normalised(suffix).filter(|suffix| !suffix.contains('*'));
        match known {
            Some(suffix) if wildcard => Ok(Self(Kind::DnsWildcard(suffix))),
            Some(name) => Ok(Self(Kind::Dns(name))),
            None => Err(BuildError::invalid(
                "DNS name",
                "it must be like `gateway.edge.svc` or `*.edge.svc`: ASCII, no trailing dot, no \
                 IP address, a `*` as the whole first label only",
            )),
        }
    }

    /// The one certificate of this SHA-256 fingerprint: 64 hexadecimal digits, alone or in pairs
    /// with colons between them, as `openssl x509 -fingerprint -sha256` prints them.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for anything else. A SHA-1 fingerprint, as nginx and HAProxy give
    /// it, is too short and too weak.
    pub fn sha256(fingerprint: &str) -> Result<Self, BuildError> {
        let bytes = hex_sha256(fingerprint).ok_or_else(|| {
            BuildError::invalid("SHA-256 fingerprint", "it must have 64 hexadecimal digits")
        })?;
        Ok(Self::sha256_bytes(bytes))
    }

    /// [`sha256`](Self::sha256), of the fingerprint's bytes.
    #[must_use]
    pub fn sha256_bytes(fingerprint: [u8; 32]) -> Self {
        Self(Kind::Sha256(fingerprint))
    }

    /// Whether the rule fits a workload.
    #[must_use]
    pub fn matches(&self, peer: &PeerIdentity) -> bool {
        match &self.0 {
            Kind::Spiffe(id) => peer.spiffe_id.as_ref() == Some(id),
            Kind::SpiffeGlob { trust_domain, segments } => spiffe_id(peer)
                .is_some_and(|id| id.trust_domain() == trust_domain && fits(segments, id)),
            Kind::TrustDomain(trust_domain) => {
                spiffe_id(peer).is_some_and(|id| id.trust_domain() == trust_domain)
            }
            Kind::Dns(name) => peer.dns_names.contains(name),
            Kind::DnsWildcard(suffix) => peer.dns_names.iter().any(|name| {
                name.split_once('.').is_some_and(|(first, rest)| rest == suffix && is_plain(first))
            }),
            Kind::Sha256(fingerprint) => peer.leaf_sha256 == *fingerprint,
        }
    }
}

fn spiffe_id(peer: &PeerIdentity) -> Option<SpiffeId<'_>> {
    SpiffeId::parse(peer.spiffe_id.as_deref()?).ok()
}

fn fits(pattern: &[Segment], id: SpiffeId<'_>) -> bool {
    let mut segments = id.segments();
    let all = pattern.iter().all(|expected| match (expected, segments.next()) {
        (Segment::Any, Some(_)) => true,
        (Segment::Only(expected), Some(segment)) => expected == segment,
        (_, None) => false,
    });
    all && segments.next().is_none()
}

/// Whether a certificate's label is a name, not a wildcard of its own.
fn is_plain(label: &str) -> bool {
    !label.is_empty() && !label.contains('*')
}

fn hex_sha256(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |high, low| Some(digit(high)? << 4 | digit(low)?);
    let text = text.as_bytes();
    let bytes: Vec<u8> = if text.contains(&b':') {
        text.split(|&separator| separator == b':')
            .map(|pair| if let &[high, low] = pair { byte(high, low) } else { None })
            .collect::<Option<_>>()?
    } else {
        text.chunks(2)
            .map(|pair| if let &[high, low] = pair { byte(high, low) } else { None })
            .collect::<Option<_>>()?
    };
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests;
