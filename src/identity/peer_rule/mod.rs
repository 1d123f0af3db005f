//! Rules: which workloads a certificate is good for.

pub(crate) mod dns;
mod email;
mod matching;
mod pin;
pub(crate) mod spiffe;
mod text;

use std::{fmt, net::IpAddr};

use self::{
    pin::Pin,
    spiffe::{SpiffeId, check_segment, check_trust_domain, segments, split},
};
use crate::BuildError;

/// Tells workloads by their certificates. Whole names and whole segments only: no rule compares the
/// beginning or the end of a text.
///
/// In files and logs (`FromStr`, `Display`, and with the feature `serde` `Deserialize`) a rule is a line of text:
///
/// | text | made by |
/// |---|---|
/// | `spiffe://prod.example/ns/edge/sa/gateway` | [`spiffe`](Self::spiffe) |
/// | `spiffe://prod.example/ns/*/sa/router` | [`spiffe_glob`](Self::spiffe_glob) |
/// | `trust-domain:prod.example` | [`trust_domain`](Self::trust_domain) |
/// | `dns:gateway.edge.svc`, `dns:*.edge.svc` | [`dns`](Self::dns) |
/// | `ip:10.0.0.1` | [`ip`](Self::ip) |
/// | `email:ops@prod.example` | [`email`](Self::email) |
/// | `cert-sha256:` and 64 hexadecimal digits | [`sha256`](Self::sha256) |
/// | `key-sha256:` and 64 hexadecimal digits | [`public_key_sha256`](Self::public_key_sha256) |
/// | `issuer-key-sha256:` and 64 hexadecimal digits | [`issuer_key_sha256`](Self::issuer_key_sha256) |
/// | `cn:gateway` | [`common_name`](Self::common_name) |
///
/// A rule fits what it names and nothing else, a deny rule too: it does not fit the same workload's
/// certificate with another name. What must stay out whatever it is called is best denied by its key.
///
/// ```
/// use palisade::identity::PeerRule;
///
/// let rule: PeerRule = "dns:*.Edge.svc".parse()?;
/// assert_eq!(rule, PeerRule::dns("*.edge.svc")?);
/// assert_eq!(rule.to_string(), "dns:*.edge.svc");
/// assert!("*.edge.svc".parse::<PeerRule>().is_err());
/// # Ok::<_, palisade::BuildError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PeerRule(Kind);

/// The names as they are compared: in their normal form.
#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Spiffe(String),
    /// With a `*` for a segment at least.
    SpiffeGlob(String),
    TrustDomain(String),
    Dns(String),
    /// What stands after `*.`.
    DnsWildcard(String),
    Ip(IpAddr),
    Email(String),
    Certificate(Pin),
    PublicKey(Pin),
    IssuerKey(Pin),
    CommonName(String),
}

impl PeerRule {
    /// Whether it asks for what only a path that was verified here tells.
    pub(crate) fn needs_path(&self) -> bool {
        matches!(self.0, Kind::IssuerKey(_))
    }

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
        if !pattern.contains('*') {
            return Self::spiffe(pattern);
        }
        let invalid = |reason| BuildError::invalid("SPIFFE pattern", reason);
        let (trust_domain, path) = split(pattern).map_err(invalid)?;
        check_trust_domain(trust_domain).map_err(invalid)?;
        let check = |segment: &str| match segment {
            "*" => Ok(()),
            _ if segment.contains('*') => Err("a `*` must be a whole segment"),
            _ => check_segment(segment),
        };
        segments(path).try_for_each(check).map_err(invalid)?;
        Ok(Self(Kind::SpiffeGlob(pattern.to_owned())))
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
    /// In a certificate with a SPIFFE ID that a `TrustStore` verified, the name counts only if a general anchor of the
    /// store vouches for it. So it is with addresses of both kinds.
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

    /// Workloads by an IP address in their certificate, compared whole: no network, no wildcard. It is
    /// not the address that the connection comes from. An IPv4 address that stands in an IPv6 one
    /// (`::ffff:10.0.0.1`) is the IPv4 address.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for what is no IP address.
    pub fn ip(address: &str) -> Result<Self, BuildError> {
        let parsed = address.parse::<IpAddr>();
        let invalid =
            |_| BuildError::invalid("IP address", "it must be like `10.0.0.1` or `fd00::1`");
        Ok(Self(Kind::Ip(parsed.map_err(invalid)?.to_canonical())))
    }

    /// Workloads, or people, by an e-mail address in their certificate. ASCII case counts before the
    /// `@` and not after it (RFC 5280, section 7.5).
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for what is no address: not ASCII, with quotes, with an IP address for a
    /// domain. And for a `*`, since no wildcard holds here.
    pub fn email(address: &str) -> Result<Self, BuildError> {
        let normalised = email::normalised(address).ok_or_else(|| {
            BuildError::invalid(
                "e-mail address",
                "it must be like `ops@prod.example`: ASCII, no quotes, no `*`",
            )
        })?;
        Ok(Self(Kind::Email(normalised)))
    }

    /// The one certificate of this SHA-256 fingerprint: 64 hexadecimal digits, alone or in pairs
    /// with colons between them, as `openssl x509 -fingerprint -sha256` prints them.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for anything else. A SHA-1 fingerprint, as nginx and HAProxy give
    /// it, is too short and too weak.
    pub fn sha256(fingerprint: &str) -> Result<Self, BuildError> {
        Pin::parse("fingerprint of a certificate", fingerprint)
            .map(|pin| Self(Kind::Certificate(pin)))
    }

    /// [`sha256`](Self::sha256), of the fingerprint's bytes.
    #[must_use]
    pub fn sha256_bytes(fingerprint: [u8; 32]) -> Self {
        Self(Kind::Certificate(Pin(fingerprint)))
    }

    /// Every certificate of this public key, its renewals with the same key included: SHA-256 of the
    /// key's DER (SubjectPublicKeyInfo), as [`sha256`](Self::sha256) takes it. OpenSSL prints it so:
    ///
    /// ```sh
    /// openssl x509 -in cert.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum
    /// ```
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for anything but 64 hexadecimal digits.
    pub fn public_key_sha256(fingerprint: &str) -> Result<Self, BuildError> {
        Pin::parse("fingerprint of a public key", fingerprint).map(|pin| Self(Kind::PublicKey(pin)))
    }

    /// The workloads that an authority with this public key vouches for, directly or through
    /// others: SHA-256 of its key, as [`public_key_sha256`](Self::public_key_sha256) takes it.
    ///
    /// The authority stands on the path that was verified here, its anchor included: what a peer merely
    /// sent along proves nothing. Only verification by a `TrustStore` tells that path. Without one this
    /// rule would fit nobody, and as a deny rule keep nobody out: `PeerCertLayerBuilder::build` refuses it then.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for anything but 64 hexadecimal digits.
    pub fn issuer_key_sha256(fingerprint: &str) -> Result<Self, BuildError> {
        let what = "fingerprint of an issuer's public key";
        Pin::parse(what, fingerprint).map(|pin| Self(Kind::IssuerKey(pin)))
    }

    /// Workloads by the common name of their certificate's subject, to the letter, for certificates
    /// that have nothing better.
    ///
    /// A common name is a text that many authorities take unchecked. So it is never asked but by this
    /// rule, and the rule fits only a certificate with **exactly one common name and no list of names at
    /// all** (Subject Alternative Name, of whatever kind). As a deny rule it is weak: a certificate with
    /// any such name passes it by.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for a name that is empty, begins or ends with a space, or holds a
    /// control character.
    pub fn common_name(name: &str) -> Result<Self, BuildError> {
        if name.is_empty() || name.trim() != name || name.contains(char::is_control) {
            return Err(BuildError::invalid(
                "common name",
                "it is empty, begins or ends with a space, or holds a control character",
            ));
        }
        Ok(Self(Kind::CommonName(name.to_owned())))
    }
}

impl fmt::Debug for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerRule").field(&format_args!("{self}")).finish()
    }
}

#[cfg(test)]
mod tests;
