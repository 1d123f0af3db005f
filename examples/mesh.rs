//! "Only the gateway may reach the model": a small mesh with certificates that live for seconds.
//!
//! ```sh
//! cargo run --example mesh --features full
//! ```
//!
//! It makes an authority for the trust domain `mesh.example`, and certificates for a gateway, a model server and an
//! outsider. The gateway and the model server run as two processes of their own. While they run, certificates are
//! replaced and those that were in use are revoked, and it shows who gets through: users through the gateway, and
//! nobody else. It ends with an error if anybody is treated otherwise.
//!
//! In the place of this authority stand SPIRE, cert-manager, step-ca or Vault: they too write files that are replaced
//! ahead of time.

use std::{
    error::Error,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use clap::{Parser, Subcommand};
use palisade::{
    Identity,
    connection::TlsPeer,
    peer_cert::{PeerCertLayer, PeerRule},
    tls::{TlsConfig, TlsListener},
    trust::TrustStore,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber,
};

type Failed = Box<dyn Error + Send + Sync>;

const TRUST_DOMAIN: &str = "mesh.example";
const GATEWAY: &str = "spiffe://mesh.example/gateway";
const OUTSIDER: &str = "spiffe://mesh.example/outsider";

/// Shows who gets through a mesh of two processes whose certificates rotate.
#[derive(Parser)]
struct Arguments {
    /// How often certificates are replaced.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long a certificate lives, in seconds. They are replaced after half of it.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(8..))]
    lifetime: u64,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The model server: mutual TLS, and the gateway alone.
    Model {
        /// Where its certificate, its key, the authority and the revocation list are.
        folder: PathBuf,
    },
    /// The gateway: takes users' requests in plain HTTP, and shows its certificate to the model server.
    Gateway {
        /// Where its certificate, its key and the authority are.
        folder: PathBuf,
        /// The model server's address.
        model: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Model { folder }) => serve_model(&folder).await,
        Some(Part::Gateway { folder, model }) => serve_gateway(folder, model).await,
        None => show(arguments.rounds, Duration::from_secs(arguments.lifetime)).await,
    }
}

async fn serve_model(folder: &Path) -> Result<(), Failed> {
    // All of these are read again when they change.
    let trust = TrustStore::builder()
        .trust_domain_file(TRUST_DOMAIN, folder.join("ca.pem"))
        .crl_file(folder.join("revoked.pem"))
        .build()?;
    let tls = TlsConfig::builder()
        .server_cert_file(folder.join("model.pem"), folder.join("model.key"))
        .client_trust(&trust)
        .build()?;
    let peers = PeerCertLayer::builder().allow(PeerRule::spiffe(GATEWAY)?).trust(&trust).build()?;
    let generate = async |identity: Identity, prompt: Bytes| {
        let peer = identity.peer().and_then(|peer| peer.spiffe_id.clone()).unwrap_or_default();
        format!("{} bytes from {peer}", prompt.len())
    };
    let app = Router::new().route("/generate", post(generate)).layer(peers);
    let listener = TlsListener::bind("127.0.0.1:0", tls).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<TlsPeer>()).await?)
}

async fn serve_gateway(folder: PathBuf, model: SocketAddr) -> Result<(), Failed> {
    let url = format!("https://localhost:{}/generate", model.port());
    let state = Arc::new((Own { folder, client: Mutex::default() }, url));
    let generate = async |State(state): State<Arc<(Own, String)>>, prompt: Bytes| {
        let (own, url) = &*state;
        let answer = async {
            let answer = own.client()?.post(url).body(prompt).send().await?;
            Ok::<_, Failed>((answer.status(), answer.text().await?))
        };
        answer.await.unwrap_or_else(|error| {
            // Where the model is, is nobody's business outside.
            eprintln!("mesh: {error}");
            (StatusCode::BAD_GATEWAY, "The model does not answer.".to_owned())
        })
    };
    let app = Router::new().route("/generate", post(generate)).with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

/// The gateway's own certificate, and the client that shows it.
struct Own {
    folder: PathBuf,
    client: Mutex<Option<(SystemTime, reqwest::Client)>>,
}

impl Own {
    /// The client with the certificate as it is now.
    fn client(&self) -> Result<reqwest::Client, Failed> {
        let made = fs::metadata(self.folder.join("gateway.pem"))?.modified()?;
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, client)) = &*client
            && *of == made
        {
            return Ok(client.clone());
        }
        let ca = fs::read_to_string(self.folder.join("ca.pem"))?;
        let own = fs::read_to_string(self.folder.join("gateway.pem"))?;
        let new = asking(&ca, Some(&own))?;
        *client = Some((made, new.clone()));
        Ok(new)
    }
}

/// A client that trusts this authority and shows this certificate: both parts in one PEM.
fn asking(ca: &str, certificate: Option<&str>) -> Result<reqwest::Client, Failed> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes())?])
        .timeout(Duration::from_secs(10));
    Ok(match certificate {
        Some(pem) => client.identity(reqwest::Identity::from_pem(pem.as_bytes())?).build()?,
        None => client.build()?,
    })
}

async fn show(rounds: u32, lifetime: Duration) -> Result<(), Failed> {
    let folder = std::env::temp_dir().join(format!("palisade-mesh-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let _folder = Removed(folder.clone());
    let mut authority = Authority::new(folder.clone(), lifetime)?;
    let mut gateway_was = authority.issue_all()?;

    let folder = folder.to_string_lossy();
    let model = Process::start(&["model", &folder])?;
    let gateway = Process::start(&["gateway", &folder, &model.addr.to_string()])?;
    println!("model server: {} (mutual TLS), gateway: {}\n", model.addr, gateway.addr);

    let (users, direct) = (
        format!("http://{}/generate", gateway.addr),
        format!("https://localhost:{}/generate", model.addr.port()),
    );
    let ca = authority.pem();
    let mut wrong = 0;
    for round in 1..=rounds {
        println!("round {round}");
        let outsider = authority.issue("outsider", OUTSIDER)?;
        let impostor = Authority::new(PathBuf::new(), lifetime)?.sign(GATEWAY)?.bundle();
        let plain = reqwest::Client::builder().no_proxy().build()?;
        for (who, client, url, expected) in [
            ("a user, through the gateway", plain, &users, Ok(200)),
            (
                "the outsider, with a good certificate",
                asking(&ca, Some(&outsider))?,
                &direct,
                Ok(403),
            ),
            ("somebody without a certificate", asking(&ca, None)?, &direct, Err(())),
            (
                "an impostor, from another authority",
                asking(&ca, Some(&impostor))?,
                &direct,
                Err(()),
            ),
        ] {
            wrong += told(who, client.post(url).body("a prompt").send().await, expected).await;
        }
        if round > 1 {
            let client = asking(&ca, Some(&gateway_was))?;
            let answer = client.post(&direct).body("a prompt").send().await;
            wrong += told("a thief, with the gateway's last certificate", answer, Err(())).await;
        }
        if round < rounds {
            gateway_was = fs::read_to_string(authority.folder.join("gateway.pem"))?;
            println!("\nall certificates are replaced, and the gateway's last one is revoked\n");
            authority.revoke_gateway();
            authority.issue_all()?;
            // Until the processes have seen it; users are served meanwhile, by the old ones.
            tokio::time::sleep(lifetime / 2).await;
        }
    }
    if wrong > 0 {
        return Err(format!("{wrong} were treated otherwise than they should be").into());
    }
    println!("\nonly the gateway reaches the model");
    Ok(())
}

/// Prints what came of it. 1 if that is not what should have.
async fn told(
    who: &str,
    answer: Result<reqwest::Response, reqwest::Error>,
    expected: Result<u16, ()>,
) -> u32 {
    let (got, text) = match answer {
        Ok(answer) => (Ok(answer.status().as_u16()), answer.text().await.unwrap_or_default()),
        Err(_) => (Err(()), "no connection".to_owned()),
    };
    let status = got.map_or("---".to_owned(), |status| status.to_string());
    let first = text.lines().next().unwrap_or_default();
    println!("  {status}  {who:<46} {first}");
    u32::from(got != expected)
}

/// One of the two processes. Ends with the value.
struct Process {
    child: Child,
    addr: SocketAddr,
}

impl Process {
    fn start(arguments: &[&str]) -> Result<Self, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let line = BufReader::new(out).lines().next().ok_or("it ended at once")??;
        let addr = line.strip_prefix("listening on ").ok_or("it does not listen")?.parse()?;
        Ok(Self { child, addr })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that goes with the value.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The authority of the mesh.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    lifetime: Duration,
    serial: u64,
    gateway: u64,
    revoked: Vec<u64>,
}

/// A certificate and its key.
struct Signed {
    certificate: String,
    key: String,
}

impl Signed {
    fn bundle(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

impl Authority {
    fn new(folder: PathBuf, lifetime: Duration) -> Result<Self, Failed> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, "mesh.example");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer, folder, lifetime, serial: 0, gateway: 0, revoked: Vec::new() })
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// New certificates for the gateway and the model server, and a list of those that count no longer. The gateway's.
    fn issue_all(&mut self) -> Result<String, Failed> {
        self.write("ca.pem", &self.pem())?;
        let model = self.sign_with(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into()?)];
            Ok(())
        })?;
        self.write("model.key", &model.key)?;
        self.write("model.pem", &model.certificate)?;
        let gateway = self.issue("gateway", GATEWAY)?;
        self.gateway = self.serial;
        self.write("revoked.pem", &self.list()?)?;
        Ok(gateway)
    }

    /// A certificate for this workload, in a file of this name: both parts in one.
    fn issue(&mut self, name: &str, id: &str) -> Result<String, Failed> {
        let bundle = self.sign(id)?.bundle();
        self.write(&format!("{name}.pem"), &bundle)?;
        Ok(bundle)
    }

    fn revoke_gateway(&mut self) {
        self.revoked.push(self.gateway);
    }

    fn sign(&mut self, id: &str) -> Result<Signed, Failed> {
        self.sign_with(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
            Ok(())
        })
    }

    fn sign_with(
        &mut self,
        change: impl FnOnce(&mut CertificateParams) -> Result<(), Failed>,
    ) -> Result<Signed, Failed> {
        self.serial += 1;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + self.lifetime).into();
        change(&mut params)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Signed { certificate, key: key.serialize_pem() })
    }

    fn list(&self) -> Result<String, Failed> {
        let now = SystemTime::now();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (now - Duration::from_secs(60)).into(),
            next_update: (now + self.lifetime * 2).into(),
            crl_number: SerialNumber::from(self.serial),
            issuing_distribution_point: None,
            revoked_certs: self.revoked.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// A new file in the place of the old one, so that nobody reads half of it.
    fn write(&self, name: &str, text: &str) -> Result<(), Failed> {
        let (new, path) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        fs::write(&new, text)?;
        Ok(fs::rename(new, path)?)
    }
}
