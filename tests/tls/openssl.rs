//! `openssl s_client` as the client: another TLS stack, which tells what it was told.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use palisade::{clock::SystemClock, trust::TrustStore};

use crate::{
    pki::{Authority, GATEWAY, Leaf},
    server::{Folder, Server},
    support,
};

/// Asks for `/healthz` over HTTP/1.1, or where `alpn` is `h2`, for nothing. All that openssl says.
async fn s_client(server: &Server, folder: &Path, leaf: Option<&Leaf>, options: &[&str]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-servername", "localhost", "-verify_return_error", "-connect"]);
    openssl.arg(server.addr.to_string()).arg("-CAfile").arg(folder.join("ca.pem")).args(options);
    if let Some(leaf) = leaf {
        std::fs::write(folder.join("cert.pem"), &leaf.cert).unwrap();
        std::fs::write(folder.join("key.pem"), &leaf.key).unwrap();
        openssl.arg("-cert").arg(folder.join("cert.pem"));
        openssl.arg("-key").arg(folder.join("key.pem"));
    }
    // With this it waits for the server to close, which h2 does not.
    let over_h2 = options.contains(&"h2");
    if !over_h2 {
        openssl.arg("-ign_eof");
    }
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = move || {
        let mut child = openssl.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        if !over_h2 {
            // It may be refused before it reads this.
            let _ = stdin.write_all(
                b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            );
        }
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn openssl_is_served_and_refused_as_it_should() {
    if Command::new("openssl").arg("version").output().is_err() {
        return support::skip("openssl is not installed");
    }
    let folder = Folder::new("openssl");
    let mut store = None;
    let server = Server::start_with(Arc::<SystemClock>::default(), |config, ca| {
        let trust = TrustStore::builder().trust_domain("prod.example", ca.pem());
        let trust = trust.crl(ca.crl(&[2], 2100)).build().unwrap();
        config.client_trust(store.insert(trust))
    })
    .await;
    let trust = store.unwrap();
    let path = folder.write("ca.pem", &server.ca.pem());
    let folder = path.parent().unwrap();
    let good = server.ca.workload_numbered(GATEWAY, 1);
    let revoked = server.ca.workload_numbered(GATEWAY, 2);
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(&server, folder, Some(&good), &[version, "-alpn", "http/1.1"]).await;
        for expected in [name, "ALPN protocol: http/1.1", "Verify return code: 0 (ok)"] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
        let said = s_client(&server, folder, Some(&good), &[version, "-alpn", "h2"]).await;
        assert!(said.contains("ALPN protocol: h2"), "{said}");
        let said = s_client(&server, folder, Some(&revoked), &[version]).await;
        assert!(said.contains("certificate revoked") && !said.contains("200 OK"), "{said}");
        let said = s_client(&server, folder, None, &[version]).await;
        assert!(said.contains("alert") && !said.contains("200 OK"), "{said}");
        // No session to come back with.
        assert!(!said.contains("TLS session ticket:"), "{said}");
    }
    let said = s_client(&server, folder, Some(&good), &["-alpn", "smtp"]).await;
    assert!(said.contains("no application protocol"), "{said}");
    // It is hinted at the authorities of the moment.
    let hints = async || {
        let said = s_client(&server, folder, Some(&good), &["-tls1_3"]).await;
        assert!(said.contains("200 OK"), "{said}");
        let (_, hints) = said.split_once("Acceptable client certificate CA names").unwrap();
        ["CN = ca", "CN = the next"].map(|name| hints.contains(name))
    };
    assert_eq!(hints().await, [true, false]);
    let next = Authority::new("the next");
    let both = TrustStore::builder().trust_domain("prod.example", server.ca.pem() + &next.pem());
    trust.replace(both).unwrap();
    assert_eq!(hints().await, [true, true]);
}
