//! Redis servers for tests: each its own, on a free loopback port, gone when it is dropped.

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A running server.
pub struct RedisServer {
    program: PathBuf,
    port: u16,
    folder: PathBuf,
    options: Vec<String>,
    process: Child,
}

impl RedisServer {
    /// Starts one. `None`, said by name, when none is installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts one with these options too. In them, `PORT` stands for its port, and `FOLDER` for its folder.
    pub fn start_with(options: &[&str]) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let names = ["redis-server", "valkey-server"];
        let found = std::env::split_paths(&path)
            .flat_map(|folder| names.map(|name| folder.join(name)))
            .find(|program| program.is_file());
        let Some(program) = found else {
            super::skip("redis-server is not installed");
            return None;
        };
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("palisade-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the server");
        // Below those that the system gives to clients, so that the port stays the server's while it is down. Another
        // process may take it before the server does: then another port.
        for port in ports(number).take(50) {
            if TcpListener::bind(("127.0.0.1", port)).is_err() {
                continue;
            }
            let own = |it: &&str| {
                it.replace("PORT", &port.to_string()).replace("FOLDER", &folder.to_string_lossy())
            };
            let options: Vec<_> = options.iter().map(own).collect();
            let process = spawn(&program, port, &folder, &options);
            let (program, folder) = (program.clone(), folder.clone());
            let mut server = Self { program, port, folder, options, process };
            if server.answers() {
                return Some(server);
            }
        }
        panic!("the redis server does not start");
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops it from running, or lets it go on, as its machine would by `SIGSTOP` and `SIGCONT`.
    pub fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        let kill = kill.arg(format!("-{signal}")).arg(self.process.id().to_string());
        assert!(kill.status().expect("kill is there").success());
    }

    /// Kills it, as a crash would. What it held is lost.
    pub fn kill(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it ends");
    }

    /// Starts it again, empty, on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.program, self.port, &self.folder, &self.options);
        assert!(self.answers(), "the redis server does not start again");
    }

    /// Sends a command of words and returns what the server says at first.
    pub fn command(&self, words: &[&str]) -> String {
        try_command(self.port, words).expect("it answers")
    }

    /// Whether what it says to a command contains the text. A connection that is cut before it answers says nothing, as
    /// a sentinel cuts all to a server whose role it changes.
    pub fn says(&self, words: &[&str], text: &str) -> bool {
        try_command(self.port, words).is_ok_and(|said| said.contains(text))
    }

    fn answers(&mut self) -> bool {
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(10) {
            if self.process.try_wait().is_ok_and(|ended| ended.is_some()) {
                return false;
            }
            // It may be another's server that answers.
            let own = format!("process_id:{}\r", self.process.id());
            if self.says(&["INFO", "server"], &own) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Ports to try for the server of this number: others for each process and each server.
fn ports(number: u32) -> impl Iterator<Item = u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    let start = std::process::id().wrapping_mul(101).wrapping_add(number.wrapping_mul(1009));
    (0..).filter_map(move |step: u32| {
        u16::try_from(FIRST + start.wrapping_add(step.wrapping_mul(31)) % COUNT).ok()
    })
}

fn spawn(program: &Path, port: u16, folder: &Path, options: &[String]) -> Child {
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder)
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the redis server starts")
}

/// A Redis Sentinel that watches one master, which it calls `limits`.
pub struct Sentinel {
    port: u16,
    folder: PathBuf,
    process: Child,
}

impl Sentinel {
    /// Starts one that takes the master for dead after half a second.
    pub fn watch(master: &RedisServer) -> Self {
        // Of a socket's own port nobody knows for how long it is free: a sentinel is not started twice.
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        let folder = format!("palisade-sentinel-{}-{port}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).expect("a folder for the sentinel");
        let file = folder.join("sentinel.conf");
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor limits 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds limits 500\nsentinel failover-timeout limits 2000\n",
            folder.display(),
            master.port()
        );
        fs::write(&file, settings).expect("a file for the sentinel");
        drop(free);
        let mut command = Command::new(&master.program);
        command.arg(&file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("the sentinel starts");
        Self { port, folder, process }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Sends a command of words and returns what it says at first; nothing while it is starting.
    pub fn command(&self, words: &[&str]) -> String {
        try_command(self.port, words).unwrap_or_default()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sends a command of words to a port, and returns what is said at first.
fn try_command(port: u16, words: &[&str]) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 65_536];
    let read = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}
