//! Policies from a file, and who asks.

use std::{io::Write as _, path::PathBuf};

use clap::Args;
use http::Request;
use palisade::{
    BoxError, BuildError, Identity,
    identity::{PeerRule, UserIdentity},
    peer_cert::PeerCertLayer,
    prompt_guard::{DetectorSet, PolicyFile, PromptGuardLayerBuilder},
    rate_limit::{Tier, TieredRateLimitLayer},
    store::Stores,
};

/// Which policies there are, and whom they are chosen for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policies")]
pub(crate) struct Policies {
    /// Holds lines to the policies of this file (TOML), and to nothing else. They may name the detectors injection, secrets,
    /// personal_data and code, and those of other servers by the names of their options. One that can't be used is an
    /// error that names its line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["threshold", "report_only", "only_remote"])]
    pub(crate) policies: Option<PathBuf>,

    /// The tier of whoever asks.
    #[arg(long, value_name = "TIER", default_value = "none", requires = "policies")]
    as_tier: String,

    /// The scopes that his token grants, with commas between them.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', requires = "policies")]
    as_scope: Vec<String>,
}

impl Policies {
    /// Adds those of the file.
    pub(crate) fn add_to(
        &self,
        guard: PromptGuardLayerBuilder,
        path: &PathBuf,
        detectors: &DetectorSet,
    ) -> Result<PromptGuardLayerBuilder, BoxError> {
        let file = PolicyFile::from_file(path, detectors)?;
        let mut stderr = std::io::stderr();
        writeln!(stderr, "guard_cli: policies {}, version {}", file.name(), file.version())?;
        Ok(guard.policy_file(file))
    }

    /// Says who asks, in the place of a layer that reads tokens.
    pub(crate) fn assert<B>(&self, request: &mut Request<B>) {
        let user = UserIdentity::asserted("guard_cli", "caller").with_scopes(&self.as_scope);
        request.extensions_mut().insert(Identity::asserted(user));
    }

    /// The layer that tells the tier.
    pub(crate) fn limits(&self) -> Result<TieredRateLimitLayer, BuildError> {
        TieredRateLimitLayer::builder(&Stores::in_memory())
            .tier(&self.as_tier, Tier::new().requests_per_second(1_000_000_000))
            .fallback_tier(&self.as_tier)
            .build()
    }

    /// The layer that tells the peer: there is none.
    pub(crate) fn peers() -> Result<PeerCertLayer, BuildError> {
        let nobody = PeerRule::dns("nobody.invalid")?;
        PeerCertLayer::builder().allow(nobody).insecure_dry_run().build()
    }
}
