//! The examples.

use super::*;

/// The examples, as an operator calls them: two servers share the keys of one Redis server.
#[test]
fn the_command_and_servers_share_keys_over_redis() {
    let Some(redis) = RedisServer::start() else { return };
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join("api_keys");
    let run = |arguments: &[&str]| {
        let output = Command::new(&program)
            .args(["--store", &redis.url()])
            .args(arguments)
            .env("PALISADE_PEPPER", "a pepper for tests")
            .output()
            .expect("built with: cargo build --example api_keys --features full");
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text.trim().to_owned())
    };
    let id = |subject: &str, state: &str| {
        let (_, listed) = run(&["list"]);
        let line =
            listed.lines().find(|line| line.contains(&format!("{state}\tapi-keys\t{subject}")));
        line.unwrap_or_else(|| panic!("{listed}")).split('\t').next().unwrap().to_owned()
    };
    let (made, first) = run(&["make", "ann", "--tier", "paid", "--days", "90"]);
    assert!(made && run(&["make", "bob"]).0);

    let arguments =
        ["--store", &redis.url(), "--api-keys", "store", "--pepper", "a pepper for tests"];
    let servers = [server::Server::start(&arguments), server::Server::start(&arguments)];
    let ask = |server: &server::Server, key: &str| {
        let url = format!("http://{}/generate", server.addr);
        let body = r#"{"prompt": "The keeper of the lighthouse", "max_tokens": 2}"#;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = reqwest::Client::new().post(url).bearer_auth(key).body(body);
        runtime.block_on(request.send()).unwrap().status().as_u16()
    };
    for server in &servers {
        assert_eq!(ask(server, &first), 200);
    }
    let (rotated, second) = run(&["rotate", &id("ann", "active"), "--overlap-hours", "1"]);
    assert!(rotated);
    assert_eq!(ask(&servers[0], &second), 200);
    let bob = id("bob", "active");
    assert!(run(&["revoke", &bob]).0 && id("bob", "revoked") == bob);
    assert!(!run(&["revoke", "nobody"]).0);

    // What the servers counted is written when they end, if not before.
    for server in servers {
        assert!(server.terminate().success());
    }
    let (_, listed) = run(&["list"]);
    let uses = |line: &str| line.split('\t').nth(8).unwrap().to_owned();
    let mut counts: Vec<_> = listed.lines().skip(1).map(uses).collect();
    counts.sort();
    assert_eq!(counts, ["0", "1", "2"], "{listed}");
    assert!(!listed.contains(&first) && !listed.contains(&second));
}
