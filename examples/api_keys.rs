//! API keys in a file or in Redis: makes, lists, revokes and rotates them.
//!
//! ```sh
//! export PALISADE_PEPPER=$(openssl rand -hex 32)
//! cargo run --example api_keys --features full -- keys.json make alice --tier paid
//! cargo run --example generate --features full -- --api-keys keys.json
//! ```
//! For several servers, `--store redis://127.0.0.1` takes the place of the file, and
//! `--store redis://127.0.0.1 --api-keys store` has them accepted.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use clap::{Parser, Subcommand};
use palisade::{
    BoxError, Secret,
    jwt::{ApiKeyError, ApiKeyFile, ApiKeyRecord, ApiKeyStore, ApiKeyUse, IssuedApiKey, NewApiKey},
    store::{Pepper, RedisStore, Stores},
};

/// Makes, lists, revokes and rotates the API keys of a file, or of a Redis server.
#[derive(Debug, Parser)]
#[command(name = "api_keys")]
struct Arguments {
    /// The file of keys. It is made with the first key.
    #[arg(required_unless_present = "store", conflicts_with = "store")]
    file: Option<PathBuf>,

    /// The Redis server that keeps them for several servers, in the place of the file.
    #[arg(long, value_name = "redis://…")]
    store: Option<String>,

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

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api_keys: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), BoxError> {
    let keys = Keys::of(&arguments).await?;
    match arguments.command {
        Command::Make { subject, issuer, tier, scope, days, note } => {
            let mut new = NewApiKey::new(issuer, subject).scopes(scope);
            new = with(new, tier, NewApiKey::tier);
            new = with(new, days, |new, days| new.lifetime(hours(days.saturating_mul(24))));
            new = with(new, note, NewApiKey::note);
            print(&keys.issue(new).await?)
        }
        Command::List => list(&keys).await,
        Command::Revoke { id } => {
            let record = keys.revoke(&id).await?;
            eprintln!("{} of {} is revoked", record.id, record.subject);
            Ok(())
        }
        Command::Rotate { id, overlap_hours } => {
            print(&keys.rotate(&id, hours(overlap_hours)).await?)
        }
    }
}

/// Where the keys are.
enum Keys {
    File(ApiKeyFile),
    Store(ApiKeyStore),
}

impl Keys {
    async fn of(arguments: &Arguments) -> Result<Self, BoxError> {
        let pepper = Secret::new(arguments.pepper.clone().into_bytes());
        let prefix = arguments.prefix.as_str();
        if let Some(file) = &arguments.file {
            return Ok(Self::File(ApiKeyFile::new(file, &pepper)?.with_prefix(prefix)?));
        }
        let url = arguments.store.as_deref().unwrap_or_default();
        let redis = RedisStore::builder(url).deadline(DEADLINE).connect().await;
        let redis = redis.map_err(|error| format!("--store: {error}"))?;
        let stores = Stores::new(Arc::new(redis), Pepper::from_secret(&arguments.pepper));
        Ok(Self::Store(ApiKeyStore::new(&stores, &pepper)?.with_prefix(prefix)?))
    }

    async fn issue(&self, new: NewApiKey) -> Result<IssuedApiKey, ApiKeyError> {
        match self {
            Self::File(file) => file.issue(new),
            Self::Store(store) => store.issue(new).await,
        }
    }

    async fn revoke(&self, id: &str) -> Result<ApiKeyRecord, ApiKeyError> {
        match self {
            Self::File(file) => file.revoke(id),
            Self::Store(store) => store.revoke(id).await,
        }
    }

    async fn rotate(&self, id: &str, overlap: Duration) -> Result<IssuedApiKey, ApiKeyError> {
        match self {
            Self::File(file) => file.rotate(id, overlap),
            Self::Store(store) => store.rotate(id, overlap).await,
        }
    }
}

/// The key alone goes to the standard output, for a pipe.
fn print(issued: &IssuedApiKey) -> Result<(), BoxError> {
    eprintln!("id {}, for {}. It is not shown again:", issued.record.id, issued.record.subject);
    Ok(writeln!(io::stdout(), "{}", issued.key.expose())?)
}

async fn list(keys: &Keys) -> Result<(), BoxError> {
    let mut out = io::stdout();
    writeln!(
        out,
        "id\tstate\tissuer\tsubject\ttier\tscopes\tcreated\texpires\tuses\tlast used\tnote"
    )?;
    match keys {
        // A file is only read: how its keys are used, each server tells of itself.
        Keys::File(file) => {
            for record in file.records()? {
                writeln!(out, "{}", line(record, None)?)?;
            }
        }
        Keys::Store(store) => {
            let mut listing = store.records();
            while let Some(key) = listing.next().await? {
                writeln!(out, "{}", line(key.record, Some(key.uses))?)?;
            }
        }
    }
    Ok(())
}

fn line(key: ApiKeyRecord, uses: Option<ApiKeyUse>) -> Result<String, BoxError> {
    let text = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let (count, last_at) = (uses.as_ref().map(|uses| uses.count), uses.and_then(|it| it.last_at));
    let columns = [
        format!("{:?}", key.state(UNIX_EPOCH.elapsed()?)).to_lowercase(),
        key.issuer,
        key.subject,
        key.tier.unwrap_or_default(),
        key.scopes.join(" "),
        key.created_at.to_string(),
        text(key.expires_at),
        text(count),
        text(last_at),
        key.note.unwrap_or_default(),
    ];
    Ok(format!("{}\t{}", key.id, columns.join("\t")))
}

/// A person waits longer than a request does.
const DEADLINE: Duration = Duration::from_secs(2);

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
