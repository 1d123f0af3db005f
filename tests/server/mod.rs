//! Starts the example `generate`, or one like it, which `cargo test` has built, on a free port.
#![allow(dead_code)] // Each test binary uses a part of it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Only tests use it.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// A running example. Ends with the value.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Server {
    /// Runs it with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_example("generate", arguments)
    }

    /// Runs the example of this name.
    pub(crate) fn start_example(name: &str, arguments: &[&str]) -> Self {
        let mut child = example(name)
            .args(["--addr", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example runs");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ")?.parse().ok())
            .expect("the example says where it listens");
        // It must not stall on a full pipe.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, addr }
    }

    /// Asks it to end, as a supervisor would, and waits until it has.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it says when it ends at once because of these arguments.
pub(crate) fn refusal(arguments: &[&str]) -> String {
    let mut example = example("generate");
    if !arguments.contains(&"--addr") {
        example.args(["--addr", "127.0.0.1:0"]);
    }
    let output = example.args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A token of `tier` for `subject`, signed by the key in this file, which is made when missing.
pub(crate) fn token(key: &Path, tier: &str, subject: &str) -> String {
    let output = example("generate")
        .arg("--dev-key")
        .arg(key)
        .args(["--print-token", &format!("{tier}:{subject}")])
        .output()
        .expect("the example runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A folder of this test's own.
pub(crate) fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// An example stands beside the folder of the tests: `target/<profile>/examples/<name>`.
pub(crate) fn example(name: &str) -> Command {
    let test = env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.exists(),
        "build it first: cargo build --example {name} --features full ({})",
        path.display()
    );
    Command::new(path)
}
