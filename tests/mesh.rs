//! The example `mesh` shows what it says: only the gateway reaches the model, also while certificates rotate.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn only_the_gateway_gets_through_while_certificates_rotate() {
    // `cargo test` has built it, in the folder next to this test's own.
    let own = std::env::current_exe().unwrap();
    let mesh = own.parent().and_then(|deps| deps.parent()).unwrap().join("examples/mesh");
    let output = Command::new(mesh).args(["--rounds", "2", "--lifetime", "8"]).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let (out, err) = (out.unwrap(), err.unwrap());
    assert!(output.status.success(), "{out}{err}");
    let lines = |start: &str| out.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((lines("  200"), lines("  403"), lines("  ---")), (2, 2, 5), "{out}");
    assert!(out.ends_with("only the gateway reaches the model\n"), "{out}");
}
