//! What a caller may use and what is left of it, for support staff: as a table; and a fresh start.
//!
//! ```sh
//! export PALISADE_PEPPER=$(openssl rand -hex 32)
//! cargo run --example generate --features full -- --store redis://127.0.0.1 --tiers tiers.toml --dev-key dev.pem
//! cargo run --example quota_cli --features full -- --store redis://127.0.0.1 --tiers tiers.toml \
//!     --issuer https://issuer.example --tier free show alice
//! cargo run --example quota_cli --features full -- --store redis://127.0.0.1 --tiers tiers.toml \
//!     --issuer https://issuer.example --tier free reset alice
//! ```
//!
//! What it is told of the caller has to be what his tokens say: a record is found under the hash of it, and by nothing
//! else.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Parser, Subcommand};
use palisade::{
    BoxError, Identity, Rejection,
    identity::UserIdentity,
    rate_limit::{Quota, Tier, TieredRateLimitLayer},
    store::{Pepper, RedisStore, Stores},
};

/// Shows what a caller has left of his limits, or lets him begin anew.
#[derive(Debug, Parser)]
#[command(name = "quota_cli")]
struct Arguments {
    /// The Redis server that keeps the limits.
    #[arg(long, value_name = "redis://…")]
    store: String,

    /// The secret that keys are hashed under, the same as the servers'.
    #[arg(long, env = "PALISADE_PEPPER", hide_env_values = true, value_name = "TEXT")]
    pepper: String,

    /// The tiers, in TOML, as the servers have them.
    #[arg(long, value_name = "FILE")]
    tiers: PathBuf,

    /// The caller's tier.
    #[arg(long)]
    tier: String,

    /// The issuer of the caller's tokens.
    #[arg(long, value_name = "URL")]
    issuer: String,

    /// The caller's organisation, where limits are shared by it.
    #[arg(long)]
    organisation: Option<String>,

    /// The caller's address, where limits are per network.
    #[arg(long)]
    address: Option<IpAddr>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints a table of the caller's limits.
    Show {
        /// The `sub` of the caller's tokens.
        subject: String,
    },
    /// Forgets what the caller has used, and prints the table.
    Reset {
        /// The `sub` of the caller's tokens.
        subject: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "quota_cli: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), BoxError> {
    let store = RedisStore::builder(&arguments.store).deadline(PATIENCE).connect().await?;
    let stores = Stores::new(Arc::new(store), Pepper::from_secret(&arguments.pepper));
    let limits = TieredRateLimitLayer::builder(&stores)
        .tiers_file(&arguments.tiers, |text| toml::from_str::<BTreeMap<String, Tier>>(text))
        .fallback_tier(&arguments.tier)
        .build()?;
    let (Command::Show { subject } | Command::Reset { subject }) = &arguments.command;
    // The fallback is the tier that was asked for, whatever claims say.
    let claims = serde_json::json!({ "org_id": arguments.organisation }).to_string();
    let user = UserIdentity::asserted(&arguments.issuer, subject).with_claims(&claims);
    let caller = Identity::asserted(user);
    let said = |refusal: Rejection| refusal.message().to_owned();
    if let Command::Reset { .. } = arguments.command {
        limits.reset_quotas(&caller, arguments.address).await.map_err(said)?;
    }
    let quotas = limits.quotas(&caller, arguments.address).await.map_err(said)?;
    print(&quotas)?;
    Ok(())
}

fn print(quotas: &[Quota]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:<36}{:>16}{:>16}{:>14}", "limit", "quota", "left", "all in")?;
    for Quota { name, quota, remaining, reset, model, shadow, .. } in quotas {
        let reset = format!("{} s", reset.as_secs_f64().ceil());
        write!(out, "{name:<36}{quota:>16}{remaining:>16}{reset:>14}")?;
        if let Some(model) = model {
            write!(out, "  model {model}")?;
        }
        writeln!(out, "{}", if *shadow { "  only counted" } else { "" })?;
    }
    Ok(())
}

/// For a person who waits, not for a request.
const PATIENCE: Duration = Duration::from_secs(5);
