//! What the layer decided, for whoever keeps an audit log.

use std::fmt::{self, Debug, Display, Write as _};

use super::PeerRule;
use crate::identity::{PeerIdentity, Proxy};

/// One decision of a [`PeerCertLayer`](super::PeerCertLayer): see
/// [`on_event`](super::PeerCertLayerBuilder::on_event).
///
/// As text (`Display`) it is one line of `name="value"` pairs that no certificate can forge: names from a certificate
/// stand in quotes, and what is not a printable ASCII character, or is a quote or a backslash, is escaped.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PeerEvent<'a> {
    /// What became of the request.
    pub outcome: PeerOutcome,
    /// Why it was, or would have been, refused: the code of the answer.
    pub code: Option<&'static str>,
    /// The peer, if it has shown a certificate that can be read. Not to be trusted unless it was admitted.
    pub peer: Option<&'a PeerIdentity>,
    /// Who forwarded its certificate.
    pub proxy: Option<&'a Proxy>,
    /// The rule that decided.
    pub rule: Option<&'a PeerRule>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerOutcome {
    /// It passed.
    Admitted,
    /// It was refused.
    Refused,
    /// It passed, in the dry run, and would be refused.
    WouldRefuse,
}

impl Display for PeerEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.outcome {
            PeerOutcome::Admitted => "outcome=\"admitted\"",
            PeerOutcome::Refused => "outcome=\"refused\"",
            PeerOutcome::WouldRefuse => "outcome=\"would_refuse\"",
        })?;
        if let Some(code) = self.code {
            write!(f, " code=\"{code}\"")?;
        }
        if let Some(peer) = self.peer {
            write_peer(f, "", peer)?;
        }
        match self.proxy {
            None => {}
            Some(Proxy::Workload(proxy)) => write_peer(f, "proxy_", proxy)?,
            Some(Proxy::Address(address)) => write!(f, " proxy_address=\"{address}\"")?,
            Some(Proxy::UnixSocket) => f.write_str(" proxy=\"unix_socket\"")?,
        }
        if let Some(rule) = self.rule {
            write!(f, " rule=\"{}\"", Escaped(rule))?;
        }
        Ok(())
    }
}

fn write_peer(f: &mut fmt::Formatter<'_>, prefix: &str, peer: &PeerIdentity) -> fmt::Result {
    if let Some(id) = &peer.spiffe_id {
        write!(f, " {prefix}spiffe=\"{}\"", Escaped(id))?;
    }
    for name in &peer.dns_names {
        write!(f, " {prefix}dns=\"{}\"", Escaped(name))?;
    }
    write!(f, " {prefix}cert_sha256=\"")?;
    peer.leaf_sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
    f.write_char('"')
}

/// Printable ASCII without quotes and backslashes, the rest escaped.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.escape_default().try_for_each(|char| self.0.write_char(char))
            }
        }
        write!(Escaping(f), "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_31_no_name_can_forge_a_line() {
        let peer = PeerIdentity {
            spiffe_id: None,
            dns_names: vec!["a\" outcome=\"admitted".into(), "b\nc\u{202e}\\".into()],
            ip_addresses: Vec::new(),
            email_addresses: Vec::new(),
            common_names: vec!["x".into()],
            has_alternative_names: true,
            leaf_sha256: [0xab; 32],
            public_key_sha256: [0; 32],
            issuer_keys_sha256: Vec::new(),
            not_before: 0,
            not_after: 0,
            claimed: None,
        };
        let event = PeerEvent {
            outcome: PeerOutcome::Refused,
            code: Some("client_not_allowed"),
            peer: Some(&peer),
            proxy: None,
            rule: Some(&PeerRule::common_name("x\" y").unwrap()),
        };
        let expected = format!(
            "outcome=\"refused\" code=\"client_not_allowed\" dns=\"a\\\" outcome=\\\"admitted\" \
             dns=\"b\\nc\\u{{202e}}\\\\\" cert_sha256=\"{}\" \
             rule=\"cn:x\\\" y\"",
            "ab".repeat(32)
        );
        assert_eq!(event.to_string(), expected);
    }
}
