//! API keys in a file: makes, lists, revokes and rotates them.
//!
//! ```sh
//! export PALISADE_PEPPER=$(openssl rand -hex 32)
//! cargo run --example api_keys --features full -- keys.json make alice --tier paid
//! cargo run --example generate --features full -- --api-keys keys.json
//! ```

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use clap::{Parser, Subcommand};
use palisade::{
    BoxError, Secret,
    jwt::{ApiKeyFile, IssuedApiKey, NewApiKey},
};

/// Makes, lists, revokes and rotates the API keys of a file.
#[derive(Debug, Parser)]
#[command(name = "api_keys")]
struct Arguments {
    /// The file of keys. It is made with the first key.
    file: PathBuf,

    /// The secret that keys are hashed under: at least 16 bytes, the same as the server's.
    #[arg(long, env = "PALISADE_PEPPER", hide_env_values = true, value_name = "TEXT")]
    pepper: String,

    /// What every key begins with.
    #[arg(long, value_name = "PREFIX", default_value = "sk-pal-")]
    prefix: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a key and prints it, this once.
    Make {
        /// Whose key it is.
        subject: String,
        /// Who vouches for the subject.
        #[arg(long, default_value = "api-keys")]
        issuer: String,
        /// The tier.
        #[arg(long)]
        tier: Option<String>,
        /// A scope that the key grants. May be given several times.
        #[arg(long)]
        scope: Vec<String>,
        /// How long it holds. Without it, until it is revoked.
        #[arg(long)]
        days: Option<u64>,
        /// A remark.
        #[arg(long)]
        note: Option<String>,
    },
    /// Prints all keys but their secrets, one a line.
    List,
    /// Ends a key now.
    Revoke {
        /// The key's id, as it is listed.
        id: String,
    },
    /// Makes a key like another one and prints it, this once. The other one ends after a while.
    Rotate {
        /// The key's id, as it is listed.
        id: String,
        /// For how long both hold.
        #[arg(long, default_value_t = 24)]
        overlap_hours: u64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api_keys: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), BoxError> {
    let pepper = Secret::new(arguments.pepper.into_bytes());
    let file = ApiKeyFile::new(arguments.file, &pepper)?.with_prefix(arguments.prefix)?;
    match arguments.command {
        Command::Make { subject, issuer, tier, scope, days, note } => {
            let mut new = NewApiKey::new(issuer, subject).scopes(scope);
            new = with(new, tier, NewApiKey::tier);
            new = with(new, days, |new, days| new.lifetime(hours(days.saturating_mul(24))));
            new = with(new, note, NewApiKey::note);
            print(&file.issue(new)?)
        }
        Command::List => list(&file),
        Command::Revoke { id } => {
            let record = file.revoke(&id)?;
            eprintln!("{} of {} is revoked", record.id, record.subject);
            Ok(())
        }
        Command::Rotate { id, overlap_hours } => print(&file.rotate(&id, hours(overlap_hours))?),
    }
}

/// The key alone goes to the standard output, for a pipe.
fn print(issued: &IssuedApiKey) -> Result<(), BoxError> {
    eprintln!("id {}, for {}. It is not shown again:", issued.record.id, issued.record.subject);
    Ok(writeln!(io::stdout(), "{}", issued.key.expose())?)
}

fn list(file: &ApiKeyFile) -> Result<(), BoxError> {
    let now = UNIX_EPOCH.elapsed()?;
    let mut out = io::stdout().lock();
    writeln!(out, "id\tstate\tissuer\tsubject\ttier\tscopes\tcreated\texpires\tnote")?;
    for key in file.records()? {
        let state = format!("{:?}", key.state(now)).to_lowercase();
        let expires = key.expires_at.map(|end| end.to_string()).unwrap_or_default();
        writeln!(
            out,
            "{}\t{state}\t{}\t{}\t{}\t{}\t{}\t{expires}\t{}",
            key.id,
            key.issuer,
            key.subject,
            key.tier.unwrap_or_default(),
            key.scopes.join(" "),
            key.created_at,
            key.note.unwrap_or_default(),
        )?;
    }
    Ok(())
}

fn with<T>(
    new: NewApiKey,
    value: Option<T>,
    set: impl FnOnce(NewApiKey, T) -> NewApiKey,
) -> NewApiKey {
    match value {
        Some(value) => set(new, value),
        None => new,
    }
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours.saturating_mul(60 * 60))
}
