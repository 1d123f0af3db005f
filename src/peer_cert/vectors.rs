//! Where the tests find material of other projects.

use std::{io::Write as _, path::PathBuf};

/// The files under `peer_cert/{folder}` of the folder that `PALISADE_VECTORS` names, by name. None
/// where it is not set, which `PALISADE_REQUIRE_SERVERS` makes a failure.
pub(crate) fn files(folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Some(root) = std::env::var_os("PALISADE_VECTORS") else {
        let strict = std::env::var_os("PALISADE_REQUIRE_SERVERS").is_some_and(|v| v == "1");
        assert!(!strict, "PALISADE_VECTORS is not set");
        // Not by `println!`, which the harness swallows when a test passes.
        let _ =
            writeln!(std::io::stderr(), "skipped: peer_cert/{folder}: PALISADE_VECTORS is not set");
        return Vec::new();
    };
    let folder = PathBuf::from(root).join("peer_cert").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && wanted(&path.file_name().unwrap().to_string_lossy()))
        .collect();
    assert!(!files.is_empty(), "{} holds none of the files", folder.display());
    files.sort();
    files
}
