//! Names of headers in which proxies tell of their clients' certificates.

/// Whether a header tells of a certificate, in any dialect.
pub(super) fn is_known(name: &impl AsRef<str>) -> bool {
    KNOWN.iter().any(|known| begins(name.as_ref(), known))
}

/// Whether some framework may take one name for the other. To CGI and what came after it `-` and `_` are the same, and
/// to some any other mark.
pub(super) fn same(one: &str, other: &impl AsRef<str>) -> bool {
    one.len() == other.as_ref().len() && begins(other.as_ref(), one)
}

fn begins(name: &str, beginning: &str) -> bool {
    name.len() >= beginning.len() && folded(beginning).eq(folded(name).take(beginning.len()))
}

fn folded(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte } else { b'-' })
}

/// How the names begin. Where a proxy tells of the subject, it does so under a name of the same beginning.
const KNOWN: &[&str] = &[
    // RFC 9440.
    "client-cert",
    // Envoy.
    "x-forwarded-client-cert",
    // nginx, and its ingress controller.
    "ssl-client-",
    // HAProxy and Apache, as their manuals name them.
    "x-ssl-client-",
    // AWS.
    "x-amzn-mtls-clientcert",
    // Traefik.
    "x-forwarded-tls-client-cert",
    // Kong and Google Cloud.
    "x-client-cert",
    // Cloudflare.
    "cf-client-cert",
    // Azure.
    "x-arr-clientcert",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_01_names_are_known_however_they_are_written() {
        for known in [
            "x-forwarded-client-cert",
            "x_forwarded_client_cert",
            "x-forwarded_client-cert",
            "x.forwarded.client.cert",
            "client-cert",
            "client_cert_chain",
            "ssl-client-verify",
            "ssl_client_subject_dn",
            "x-ssl-client-verify",
            "x-amzn-mtls-clientcert",
            "x-amzn-mtls-clientcert-leaf",
            "x_amzn_mtls_clientcert_subject",
            "x-forwarded-tls-client-cert-info",
        ] {
            assert!(is_known(&known), "{known}");
        }
        for other in ["", "x-forwarded-for", "x-client", "client", "ssl-client", "x-my-client-cert"]
        {
            assert!(!is_known(&other), "{other}");
        }
        assert!(same("x-cert", &"x_cert") && same("x_cert", &"x-cert"));
        assert!(!same("x-cert", &"x-cert-2") && !same("x-cert-2", &"x-cert"));
    }
}
