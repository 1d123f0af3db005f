//! What the guard's files have in common: TOML that is bounded, and errors that name a line and repeat no value.

use std::{borrow::Cow, path::Path};

use serde::de::DeserializeOwned;

use super::policies::{NAME, is_name};
use crate::{BoxError, BuildError, watch};

/// Reads `text` as a `T`. `what` is for errors.
pub(crate) fn parse<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, BuildError> {
    if text.len() > MOST_BYTES {
        return Err(BuildError::invalid(what, "it is larger than 1 MiB"));
    }
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| line(text, span.start));
        let reason = format!("line {line}: {}", without_values(error.message()));
        BuildError::invalid(what, reason)
    })
}

/// Reads a file of such text. Blocks.
pub(crate) fn read<T>(
    path: &Path,
    read: impl FnOnce(&str) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    let file = |source: BoxError| BuildError::File { path: path.to_owned(), source };
    let bytes = watch::read(path).map_err(|error| file(error.into()))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| file(error.into()))?;
    read(text).map_err(|error| file(error.into()))
}

/// Name and version of a file of format 1.
pub(crate) fn check_head(
    what: &'static str,
    format: u32,
    name: &str,
    version: &str,
) -> Result<(), BuildError> {
    if format != 1 {
        return Err(BuildError::invalid(what, "its format is not 1, the only one that is known"));
    }
    for (member, value) in [("name", name), ("version", version)] {
        if !is_name(value) {
            return Err(BuildError::invalid(what, format!("its {member} is not {NAME}")));
        }
    }
    Ok(())
}

pub(crate) fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// What the parser says, without the value that it quotes.
fn without_values(message: &str) -> Cow<'_, str> {
    let quotes_value = ["invalid type", "invalid value", "invalid length", "unknown variant"]
        .iter()
        .any(|quotes| message.starts_with(quotes));
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if quotes_value => format!("expected {expected}").into(),
        _ if quotes_value => "the value can't be used".into(),
        _ => message.lines().next().unwrap_or_default().chars().take(200).collect(),
    }
}

const MOST_BYTES: usize = 1024 * 1024;
