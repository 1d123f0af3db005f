//! What can be chosen on the command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// What the layers and the listener want to know.
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Where to listen. Port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) addr: SocketAddr,

    /// Who issues the tokens that are believed: their `iss`. Its metadata say where its keys are (OpenID
    /// Connect Discovery, RFC 8414), unless `--jwks` or `--dev-key` gives them. Without it, this server
    /// signs tokens of its own, as https://issuer.example.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    /// Whom the tokens must be meant for: their `aud`.
    #[arg(long, default_value = "https://generate.example")]
    pub(crate) audience: String,

    /// The issuer's key set: a file, or a URL that is asked again as keys change (`https://`, or on
    /// this machine `http://`). With it, no key is made here.
    #[arg(long, value_name = "FILE-or-URL", conflicts_with = "dev_key")]
    pub(crate) jwks: Option<String>,

    /// Finds an issuer's keys over `http://` too, on this machine alone. Whoever else listens here may
    /// then choose the keys.
    #[arg(long, requires = "issuer")]
    pub(crate) insecure_http_loopback: bool,

    /// A scope that tokens must grant. May be given several times.
    #[arg(long, value_name = "SCOPE")]
    pub(crate) require_scope: Vec<String>,

    /// A signing key for development: a file, made when it is missing. Without it and without
    /// `--jwks` the key is forgotten when the server ends.
    #[arg(long, value_name = "FILE")]
    pub(crate) dev_key: Option<PathBuf>,

    /// Prints a token of this tier for this subject, signed by the key of `--dev-key` and good for
    /// an hour, and ends.
    #[arg(long, value_name = "TIER:SUBJECT", requires = "dev_key", value_parser = tier_and_subject)]
    pub(crate) print_token: Option<(String, String)>,

    /// API keys to accept beside tokens, which the example `api_keys` makes, under the same pepper: those
    /// of a file, which is read again when it changes, or `store` for those of `--store`.
    #[arg(long, value_name = "FILE|store", requires = "pepper")]
    pub(crate) api_keys: Option<PathBuf>,

    /// The tiers, in TOML, read again when the file changes. Without it: `free`, `paid` and `enterprise`.
    #[arg(long, value_name = "FILE")]
    pub(crate) tiers: Option<PathBuf>,

    /// The tier of callers whose token names none that there is. Without it they have `free`, or are refused where there
    /// are `--tiers`.
    #[arg(long, value_name = "TIER")]
    pub(crate) fallback_tier: Option<String>,

    /// Where limits, and API keys, are kept: `memory`, or a `redis://` URL for several servers together.
    #[arg(long, value_name = "memory|redis://…", default_value = "memory", value_parser = store)]
    pub(crate) store: String,

    /// The secret that keys every record in the store and every API key, the same for all servers that
    /// share them.
    #[arg(long, env = "PALISADE_PEPPER", hide_env_values = true, value_name = "TEXT")]
    pub(crate) pepper: Option<String>,

    /// The server's certificate and those that lead to its authority, in PEM. With it, TLS only.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The key of the server's certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The authorities whose client certificates are believed, in PEM. With it, a client without one
    /// gets no connection.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) client_ca: Option<PathBuf>,

    /// A workload that may call: `spiffe://domain/path`. May be given several times; without it, all
    /// whom an authority of `--client-ca` vouches for may.
    #[arg(long, value_name = "SPIFFE-ID", requires = "client_ca")]
    pub(crate) allow_peer: Vec<String>,
}

impl Config {
    pub(crate) fn issuer(&self) -> &str {
        self.issuer.as_deref().unwrap_or("https://issuer.example")
    }

    /// Whether the issuer is another, whose metadata say where its keys are.
    pub(crate) fn discovers_keys(&self) -> bool {
        self.issuer.is_some() && self.jwks.is_none() && self.dev_key.is_none()
    }

    /// Whether anybody can call without more than a token of the default tiers.
    pub(crate) fn is_plain(&self) -> bool {
        self.jwks.is_none()
            && self.tiers.is_none()
            && self.tls_cert.is_none()
            && self.require_scope.is_empty()
    }
}

fn tier_and_subject(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((tier, subject)) if !tier.is_empty() && !subject.is_empty() => {
            Ok((tier.to_owned(), subject.to_owned()))
        }
        _ => Err("write TIER:SUBJECT, free:alice for one".to_owned()),
    }
}

fn store(text: &str) -> Result<String, String> {
    if text == "memory" || text.starts_with("redis://") {
        Ok(text.to_owned())
    } else {
        Err("write memory, or redis://host:port".to_owned())
    }
}
