//! Who may import whom: the files directly under `src/` only the core, the shared parts the core, the
//! layers all of those and never each other; and which file may name which crate.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

const LAYERS: &[&str] = &["jwt", "peer_cert", "rate_limit", "prompt_guard", "abuse"];
const SHARED: &[&str] = &["inference", "store", "trust"];

/// Crates that only these parts may name. A part is a folder or a file under `src/`.
const CRATES: &[(&str, &[&str])] = &[
    ("bpe_openai", &["inference/tokens"]),
    ("redis", &["store/redis"]),
    ("jsonwebtoken", &["jwt"]),
    ("axum", &["connection.rs", "extract.rs", "tls"]),
    ("axum_server", &["connection.rs", "extract.rs", "tls"]),
    ("tonic", &["connection.rs", "extract.rs", "tls"]),
    ("rustls", &["store/redis/tls.rs", "tls"]),
    ("tokio_rustls", &["store/redis/tls.rs", "tls"]),
    ("webpki", &["trust"]),
    ("x509_cert", &["peer_cert", "trust"]),
    ("reqwest", &["outbound.rs"]),
    ("rustix", &["clock.rs"]),
    ("tokio", &["runtime.rs"]),
    ("tracing", &["observe.rs"]),
    ("metrics", &["observe.rs"]),
];

#[test]
fn parts_import_only_what_they_may() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        for used in modules_used(&code) {
            if !may_import(&part_of(&path), &used) {
                wrong.push(format!("{}: crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_are_named_only_where_they_may_be() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        for (name, parts) in CRATES {
            let allowed = parts.iter().any(|part| path.to_string_lossy().starts_with(part));
            if !allowed && names_crate(&code, name) {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rules must be able to fail.
#[test]
fn the_rules_hold_what_they_say() {
    assert!(!may_import("jwt", "rate_limit"));
    assert!(!may_import("store", "jwt"));
    assert!(!may_import("core", "store"));
    assert!(may_import("jwt", "store"));
    assert!(may_import("tls", "trust"));
    assert!(!may_import("tls", "store"));
    assert_eq!(modules_used("use crate::{\n  error::E, jwt::{a, b}};"), ["error", "jwt"]);
    assert_eq!(modules_used("fn f() -> crate::store::Key"), ["store"]);
    assert!(names_crate("let x = redis::Client::open()", "redis"));
    assert!(names_crate("use tokio::time;", "tokio"));
    assert!(!names_crate("// use redis::x", "redis"));
    assert!(!names_crate("self::redis::x", "redis"));
    assert!(sources().len() > 20);
}

fn may_import(part: &str, used: &str) -> bool {
    let is_layer = |name: &str| LAYERS.contains(&name);
    let is_shared = |name: &str| SHARED.contains(&name);
    if part == used || part == "lib.rs" {
        return true;
    }
    match used {
        "tls" => false,
        used if is_layer(used) => false,
        "trust" => is_layer(part) || part == "tls",
        used if is_shared(used) => is_layer(part),
        _ => true,
    }
}

/// The folder of a file, or `core`; the front page may name everything.
fn part_of(path: &Path) -> String {
    let mut components = path.components();
    let first = components.next().unwrap().as_os_str().to_string_lossy().into_owned();
    match (components.next(), first.as_str()) {
        (None, "lib.rs") => first,
        (None, _) | (_, "reject") => "core".into(),
        _ => first,
    }
}

/// The modules that are named through `crate::`, tests and comments aside.
fn modules_used(code: &str) -> Vec<String> {
    let code = without_tests_and_comments(code);
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => used.push(std::mem::take(&mut name)),
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            used.push(name);
        } else {
            used.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    let first = |path: String| path.trim().split("::").next().unwrap_or_default().trim().to_owned();
    let module = |name: &String| name.starts_with(|c: char| c.is_lowercase());
    used.into_iter().map(first).filter(module).collect()
}

fn names_crate(code: &str, name: &str) -> bool {
    let code = without_tests_and_comments(code);
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        !before.is_alphanumeric() && before != '_' && before != ':'
    })
}

fn without_tests_and_comments(code: &str) -> String {
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with("tests.rs") {
                // Tests may name what they like.
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), code));
            }
        }
    }
    found
}
