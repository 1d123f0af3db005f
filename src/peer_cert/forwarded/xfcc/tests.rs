use std::sync::LazyLock;

use super::*;
use crate::peer_cert::forwarded::tests::{certificate, escaped, pem};

mod properties;

/// A client of some proxy, and the parts that Envoy writes of its certificate.
struct Client {
    leaf: CertificateDer<'static>,
    hash: String,
    cert: String,
    chain: String,
}

static AUTHORITY: LazyLock<CertificateDer<'static>> = LazyLock::new(|| certificate("authority"));
static BILLING: LazyLock<Client> = LazyLock::new(|| Client::new("billing"));
static GATEWAY: LazyLock<Client> = LazyLock::new(|| Client::new("gateway"));

impl Client {
    fn new(name: &str) -> Self {
        let leaf = certificate(name);
        let hash = Sha256::digest(&leaf).iter().map(|byte| format!("{byte:02x}")).collect();
        let cert = escaped(&pem(&leaf));
        let chain = format!("{cert}{}", escaped(&pem(&AUTHORITY)));
        Self { leaf, hash, cert, chain }
    }

    /// As Envoy writes it where all details are on.
    fn header(&self) -> String {
        format!(
            "By=spiffe://prod.example/envoy;Hash={};Cert=\"{}\";Chain=\"{}\";Subject=\"CN=a\";\
             URI=spiffe://prod.example/a;DNS=a.svc;DNS=b.svc;Issuer=\"CN=b\"",
            self.hash, self.cert, self.chain
        )
    }

    /// As [`header`](Self::header), with these URI names in the place of its own.
    fn with_uri(&self, uri: &str) -> String {
        self.header().replace("spiffe://prod.example/a", uri)
    }
}

fn leaf(header: &str) -> Option<CertificateDer<'static>> {
    read(header).ok()?.into_iter().next()
}

#[test]
fn what_envoy_writes_is_read() {
    let Client { leaf, hash, cert, .. } = &*BILLING;
    let all = [leaf.clone(), AUTHORITY.clone()];
    assert_eq!(read(&BILLING.header()).unwrap(), all);
    for header in [
        format!("Hash={hash};Cert=\"{cert}\""),
        format!("Hash={hash};Cert=\"{cert}\";URI="),
        format!("By=spiffe://a/b;By=spiffe://a/c;Hash={hash};Cert=\"{cert}\""),
        format!("Hash={hash};Cert=\"{cert}\";Subject=\"\";URI=;DNS=a;DNS=*.b;DNS=c"),
        format!(r#"Hash={hash};Cert="{cert}";Subject="CN=a,OU=\"A\"\; b\\,O=A\, Inc.";URI="#),
    ] {
        assert_eq!(read(&header).as_deref(), Ok([leaf.clone()].as_slice()), "{header}");
    }
}

#[test]
fn attack_05_a_client_can_not_write_itself_another_certificate() {
    let Client { hash, cert, chain, .. } = &*GATEWAY;
    for uri in [
        format!("x,By=x;Hash={hash};Cert=\"{cert}\";URI=x"),
        format!("x,Hash={hash};Cert=\"{cert}\""),
        format!("x;Hash={hash};Cert=\"{cert}\""),
        format!("x;Cert=\"{cert}\""),
        format!("x;Hash={hash}"),
        format!("x;Chain=\"{chain}\""),
        "x;URI=spiffe://prod.example/gateway".into(),
        "x;Subject=\"CN=gateway\"".into(),
        "x;By=spiffe://prod.example/gateway".into(),
        "x;Issuer=\"CN=a\"".into(),
        "x\"".into(),
        "\"x\"".into(),
        "x\\".into(),
        "x;".into(),
        "x,".into(),
        "x;y".into(),
        "x;y=z".into(),
        "x=y".into(),
        "x;=y".into(),
        "x y".into(),
        "x;hash=y".into(),
        "x; DNS=y".into(),
        "x;DNS =y".into(),
    ] {
        assert!(read(&BILLING.with_uri(&uri)).is_err(), "{uri}");
    }
    // Where Envoy does not write the certificate, the client may try, but Envoy has written the hash.
    let billing = &BILLING.hash;
    let forged = format!("Hash={billing};URI=x;Cert=\"{cert}\"");
    assert_eq!(read(&forged), Err(Malformed("its Hash is not that of its Cert")));
    assert!(read(&format!("Hash={billing};URI=x;Cert=\"{cert}\";Hash={hash}")).is_err());
    // A chain of its own choice, as it could have sent in the handshake, but not with another leaf.
    let own = format!("Hash={billing};Cert=\"{}\";URI=x;Chain=\"", BILLING.cert);
    assert_eq!(leaf(&format!("{own}{}\"", BILLING.chain)), Some(BILLING.leaf.clone()));
    assert!(read(&format!("{own}{chain}\"")).is_err());
}

#[test]
fn attack_06_an_element_on_the_left_is_refused() {
    let genuine = BILLING.header();
    for left in ["URI=spiffe://prod.example/gateway", "", " ", "x", &GATEWAY.header(), &genuine] {
        for comma in [",", ", ", ";"] {
            assert!(read(&format!("{left}{comma}{genuine}")).is_err(), "{left}");
            assert!(read(&format!("{genuine}{comma}{left}")).is_err(), "{left}");
        }
    }
}

#[test]
fn attack_08_without_a_certificate_nobody_is_known() {
    for header in [
        "URI=spiffe://prod.example/gateway".to_owned(),
        "By=a;URI=spiffe://prod.example/gateway".into(),
        format!("By=a;Hash={};Subject=\"CN=gateway\";URI=b", GATEWAY.hash),
    ] {
        let Err(Malformed(reason)) = read(&header) else { panic!("{header}") };
        assert!(reason.contains("set_current_client_cert_details"), "{reason}");
    }
    assert!(read(&format!("Cert=\"{}\"", GATEWAY.cert)).is_err());
}

#[test]
fn attack_09_only_the_letter_of_envoy_is_read() {
    let Client { hash, cert, .. } = &*BILLING;
    let upper = hash.to_uppercase();
    let cut = &hash[..63];
    for header in [
        String::new(),
        "=".into(),
        ";".into(),
        ",".into(),
        "Hash".into(),
        format!("Hash={upper};Cert=\"{cert}\""),
        format!("Hash={cut};Cert=\"{cert}\""),
        format!("Hash={hash}0;Cert=\"{cert}\""),
        format!("Hash=;Cert=\"{cert}\""),
        format!("Hash=\"{hash}\";Cert=\"{cert}\""),
        format!("Hash={hash};Cert={cert}"),
        format!("Hash={hash};Cert=\"{cert}"),
        format!("Hash={hash};Cert=\"{cert}\\\""),
        format!("Hash={hash};Cert=\"\""),
        format!("Hash={hash};Cert=\"{cert}{cert}\""),
        format!("Hash={hash};Cert=\"{cert}\"x"),
        format!("Hash={hash};Cert=\"{cert}\" "),
        format!("Hash={hash};Cert=\"{cert}\";"),
        format!(" Hash={hash};Cert=\"{cert}\""),
        format!("Hash={hash}; Cert=\"{cert}\""),
        format!("Hash={hash};;Cert=\"{cert}\""),
        format!("hash={hash};cert=\"{cert}\""),
        format!("Hash={hash};Cert=\"{cert}\";SAN=x"),
        format!("Hash={hash};Cert=\"{cert}\";Subject=\"a\tb\""),
        format!("Hash={hash};Cert=\"{cert}\";Subject=\"a\\\""),
        format!("Hash={hash};Cert=\"{cert}\";Subject=\"a\"b\""),
        format!("Hash={hash};Cert=\"{cert}\";Subject=a"),
        format!("Hash={hash};Cert=\"{cert}\";URI=\"a\""),
        format!("Hash={hash};Cert=\"{cert}\";URI=é"),
        format!("Hash={hash};By=a;Cert=\"{cert}\";By=b"),
        format!("By=a;Hash={hash};By=b;Cert=\"{cert}\""),
        format!("Hash={hash};Cert=\"{cert}\";Chain=\"\""),
        format!("Hash={hash};Cert=\"{cert}\";Chain=\"{}\"", escaped(&pem(&AUTHORITY))),
        format!("Hash={hash};Cert=\"{}\"", cert.replace("%0A", "%250A")),
        format!("Hash={hash};Cert=\"{}\"", cert.replace("%0A", "%00")),
        format!("Hash={hash};Cert=\"{}\"", cert.replace("%0A", "%0")),
    ] {
        assert!(read(&header).is_err(), "{header}");
    }
}
