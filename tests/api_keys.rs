//! API keys: what holds, what does not, and what a file that changes does to a running server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod jwt_support;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use http::{Request, Response, StatusCode};
use jwt_support::{Key, NOW, claims};
use palisade::{
    Identity, Secret,
    clock::ManualClock,
    identity::UserIdentity,
    jwt::{
        Algorithm, ApiKeyError, ApiKeyFile, ApiKeyState, ApiKeys, AuthError, IssuedApiKey,
        JwtAuthLayer, NewApiKey, Presented, ResourceServer, TokenVerifier,
    },
};
use tower::{Layer, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// A file of keys of a test's own, and a clock that stands still.
struct Setup {
    path: PathBuf,
    clock: Arc<ManualClock>,
    file: ApiKeyFile,
}

impl Setup {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("keys-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("keys.json");
        let clock = Arc::new(ManualClock::at(Duration::from_secs(NOW)));
        let file = ApiKeyFile::new(&path, &pepper()).unwrap().with_clock(clock.clone());
        Self { path, clock, file }
    }

    fn issue(&self, subject: &str) -> IssuedApiKey {
        let new = NewApiKey::new("keys", subject).tier("paid").scopes(["llm:infer", "models"]);
        self.file.issue(new).unwrap()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.path.parent().unwrap());
    }
}

fn pepper() -> Secret<Vec<u8>> {
    Secret::new(b"a pepper for tests".to_vec())
}

async fn verify(keys: &impl TokenVerifier, key: &str) -> Result<Arc<UserIdentity>, AuthError> {
    keys.verify(&Presented::alone(key)).await
}

async fn refusal(keys: &ApiKeys, key: &str) -> &'static str {
    verify(keys, key).await.unwrap_err().description()
}

#[tokio::test]
async fn a_key_gives_the_identity_that_a_token_would() {
    let setup = Setup::new();
    let new = NewApiKey::new("keys", "ann").tier("paid").scopes(["a", "b"]).lifetime(SECOND * 60);
    let issued = setup.file.issue(new).unwrap();
    assert!(issued.key.expose().starts_with("sk-pal-"));
    let keys = setup.file.open().unwrap();
    let user = verify(&keys, issued.key.expose()).await.unwrap();
    assert_eq!((user.issuer(), user.subject()), ("keys", "ann"));
    assert_eq!(user.scopes(), ["a", "b"]);
    assert_eq!(user.claims().str("tier"), Some("paid"));
    assert_eq!(user.claims().u64("iat"), Some(NOW));
    assert_eq!(user.token_id(), Some(issued.record.id.as_str()));
    assert_eq!(user.expires_at(), Some(NOW + 60));
}

#[tokio::test]
async fn keys_that_do_not_hold_are_told_apart_for_those_who_have_them() {
    let setup = Setup::new();
    let (ended, revoked) = (setup.issue("ann"), setup.issue("bob"));
    let short = NewApiKey::new("keys", "cid").lifetime(SECOND * 60);
    let short = setup.file.issue(short).unwrap();
    setup.file.revoke(&revoked.record.id).unwrap();
    let keys = setup.file.open().unwrap();
    assert!(verify(&keys, short.key.expose()).await.is_ok());
    setup.clock.advance(SECOND * 60);
    assert_eq!(refusal(&keys, short.key.expose()).await, "The API key has expired.");
    assert_eq!(refusal(&keys, revoked.key.expose()).await, "The API key was revoked.");
    assert!(verify(&keys, ended.key.expose()).await.is_ok());

    let other = Setup::new().issue("ann");
    assert_eq!(refusal(&keys, other.key.expose()).await, "The API key is not known.");
    let swapped = ended.key.expose().to_uppercase();
    assert_eq!(refusal(&keys, &swapped).await, "The API key is malformed.");
    let mut typed = ended.key.expose().clone();
    typed.replace_range(20..21, if typed.as_bytes()[20] == b'x' { "y" } else { "x" });
    assert_eq!(refusal(&keys, &typed).await, "The API key is malformed.");

    let wrong = ApiKeyFile::new(&setup.path, &Secret::new(vec![1; 16])).unwrap().open().unwrap();
    assert_eq!(refusal(&wrong, ended.key.expose()).await, "The API key is not known.");
}

#[tokio::test]
async fn a_change_of_the_file_counts_within_a_second() {
    let setup = Setup::new();
    let first = setup.issue("ann");
    let keys = setup.file.open().unwrap();
    assert!(verify(&keys, first.key.expose()).await.is_ok());

    let second = setup.issue("bob");
    setup.file.revoke(&first.record.id).unwrap();
    // The file is not looked at more than once a second.
    assert!(keys.verify(&Presented::alone(first.key.expose())).try_now().unwrap().is_ok());
    setup.clock.advance(SECOND);
    assert_eq!(refusal(&keys, first.key.expose()).await, "The API key was revoked.");
    assert!(verify(&keys, second.key.expose()).await.is_ok());

    // However long nobody came: the first request sees what changed meanwhile.
    setup.file.revoke(&second.record.id).unwrap();
    setup.clock.advance(SECOND * 3600);
    assert_eq!(refusal(&keys, second.key.expose()).await, "The API key was revoked.");
    let uses: Vec<_> = keys.uses().into_iter().map(|used| (used.count, used.last_at)).collect();
    assert!(uses.contains(&(2, Some(NOW))) && uses.contains(&(1, Some(NOW + 1))), "{uses:?}");
}

#[tokio::test]
async fn a_request_that_leaves_while_the_file_is_read_does_no_harm() {
    let setup = Setup::new();
    let issued = setup.issue("ann");
    let keys = setup.file.open().unwrap();
    setup.file.revoke(&issued.record.id).unwrap();
    setup.clock.advance(SECOND);
    let answer = keys.verify(&Presented::alone(issued.key.expose())).try_now();
    drop(answer.expect_err("it waits for the file"));
    assert_eq!(refusal(&keys, issued.key.expose()).await, "The API key was revoked.");
}

#[tokio::test]
async fn garbage_in_the_file_changes_nothing_and_is_counted() {
    let setup = Setup::new();
    let issued = setup.issue("ann");
    let keys = setup.file.open().unwrap();
    let good = fs::read_to_string(&setup.path).unwrap();
    let cases = [
        String::new(),
        "{\"keys\": [".to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"subject\": \"ann\"", "\"subject\": \"\""),
        good.replace("\"subject\"", "\"admin\": true, \"subject\""),
        good.replace("\"tier\": \"paid\"", "\"tier\": 7"),
    ];
    for (count, bad) in cases.iter().enumerate() {
        fs::write(&setup.path, bad).unwrap();
        assert!(setup.file.records().is_err(), "{bad}");
        for _ in 0..3 {
            setup.clock.advance(SECOND);
            assert!(verify(&keys, issued.key.expose()).await.is_ok());
        }
        assert_eq!(keys.failed_reads(), count as u64 + 1, "read once: {bad}");
    }
    fs::remove_file(&setup.path).unwrap();
    setup.clock.advance(SECOND);
    assert!(verify(&keys, issued.key.expose()).await.is_ok());
    assert_eq!(keys.failed_reads(), cases.len() as u64 + 1);
    assert!(setup.file.open().is_err(), "a server does not start without its keys");

    fs::write(&setup.path, "{\"keys\": []}").unwrap();
    setup.clock.advance(SECOND);
    assert_eq!(refusal(&keys, issued.key.expose()).await, "The API key is not known.");
}

#[tokio::test]
async fn both_keys_hold_until_the_overlap_ends() {
    let setup = Setup::new();
    let day = SECOND * 86_400;
    let old = setup.file.issue(NewApiKey::new("keys", "ann").tier("paid").lifetime(day)).unwrap();
    setup.clock.advance(SECOND * 3600);
    let new = setup.file.rotate(&old.record.id, SECOND * 60).unwrap();
    let keys = setup.file.open().unwrap();
    for key in [&old, &new] {
        assert_eq!(verify(&keys, key.key.expose()).await.unwrap().subject(), "ann");
    }
    assert_eq!(new.record.tier.as_deref(), Some("paid"));
    assert_eq!(new.record.expires_at, Some(NOW + 3600 + 86_400));
    setup.clock.advance(SECOND * 60);
    assert_eq!(refusal(&keys, old.key.expose()).await, "The API key has expired.");
    assert!(verify(&keys, new.key.expose()).await.is_ok());

    // Rotated once more, the old one lives no longer for it, and its heir as long as it was made for.
    let third = setup.file.rotate(&old.record.id, day).unwrap();
    assert_eq!(third.record.lifetime, Some(86_400));
    let records = setup.file.records().unwrap();
    assert_eq!(
        records.iter().map(|key| key.state(Duration::from_secs(NOW + 3660))).collect::<Vec<_>>(),
        [ApiKeyState::Expired, ApiKeyState::Active, ApiKeyState::Active]
    );
    setup.file.revoke(&old.record.id).unwrap();
    let again = setup.file.rotate(&old.record.id, day);
    assert!(matches!(again, Err(ApiKeyError::Revoked)));
    assert!(matches!(setup.file.revoke("none"), Err(ApiKeyError::NoSuchKey)));
}

#[tokio::test]
async fn keys_and_tokens_are_told_apart_by_the_prefix() {
    let setup = Setup::new();
    let issued = setup.issue("ann");
    let signer = Key::new(Algorithm::EdDSA);
    let token = signer.token(&claims(serde_json::json!({})));
    let server = ResourceServer::builder().issuer(signer.issuer());
    let server = server.clock(setup.clock.clone()).build().unwrap();
    let keys = setup.file.open().unwrap();
    let both = keys.clone().or(server.clone());

    assert!(verify(&both, issued.key.expose()).await.is_ok());
    assert!(verify(&both, &token).await.is_ok());
    // Either alone does not accept the other's.
    assert!(verify(&keys, &token).await.is_err());
    assert!(verify(&server, issued.key.expose()).await.is_err());
    let prefixed = format!("sk-pal-{token}");
    let description = verify(&both, &prefixed).await.unwrap_err().description();
    assert_eq!(description, "The API key is malformed.", "never tried as a token");
}

#[tokio::test]
async fn the_layer_takes_keys_as_clients_send_them() {
    let setup = Setup::new();
    let issued = setup.issue("ann");
    let keys = setup.file.open().unwrap();
    let layer = JwtAuthLayer::builder(keys).require_scopes_at("/admin", ["admin"]).build().unwrap();
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let user = Identity::of(request.extensions()).and_then(Identity::user);
        assert!(!request.headers().contains_key("authorization"));
        assert!(!request.headers().contains_key("x-api-key"));
        Ok::<_, std::convert::Infallible>(Response::new(user.unwrap().subject().to_owned()))
    }));
    let send = async |path: &str, name: &str, value: String| {
        let request = Request::post(path).header(name, value).body(()).unwrap();
        service.clone().oneshot(request).await.unwrap()
    };
    let bearer = format!("Bearer {}", issued.key.expose());
    let openai = send("/v1/chat/completions", "authorization", bearer.clone()).await;
    assert_eq!(openai.status(), StatusCode::OK);
    let anthropic = send("/v1/messages", "x-api-key", issued.key.expose().clone()).await;
    assert_eq!(anthropic.status(), StatusCode::OK);
    assert_eq!(send("/admin", "authorization", bearer).await.status(), StatusCode::FORBIDDEN);
    let unknown = send("/v1/messages", "x-api-key", "sk-something".into()).await;
    assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED);
}

#[test]
fn nothing_secret_shows_or_is_kept() {
    let setup = Setup::new();
    let issued = setup.issue("ann");
    let keys = setup.file.open().unwrap();
    let key = issued.key.expose();
    let secret = &key["sk-pal-".len()..];
    let kept = fs::read_to_string(&setup.path).unwrap();
    assert!(!kept.contains(secret) && !kept.contains(&secret[..12]));
    let hash = kept.split("\"hash\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let presented = Presented::alone(key);
    let error = setup.file.revoke(key).unwrap_err();
    for shown in [
        format!("{issued:?}"),
        format!("{keys:?}"),
        format!("{:?}", setup.file),
        format!("{presented:?}"),
        format!("{error:?} {error}"),
    ] {
        assert!(!shown.contains(secret) && !shown.contains(&hash), "{shown}");
        assert!(!shown.contains("a pepper") && !shown.contains("97, 32, 112"), "{shown}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&setup.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn changes_at_once_are_made_one_after_the_other() {
    let setup = Setup::new();
    let made: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let setup = &setup;
                scope.spawn(move || {
                    let new = || NewApiKey::new("keys", format!("worker-{worker}"));
                    let mut made = Vec::new();
                    while made.len() < 5 {
                        match setup.file.issue(new()) {
                            Ok(issued) => made.push(issued.record.id),
                            Err(ApiKeyError::Busy(_)) => thread::yield_now(),
                            Err(error) => unreachable!("{error}"),
                        }
                    }
                    made
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let kept: HashSet<String> =
        setup.file.records().unwrap().into_iter().map(|record| record.id).collect();
    assert_eq!(kept, made.into_iter().collect());
    assert_eq!(kept.len(), 20);
    assert_eq!(fs::read_dir(setup.path.parent().unwrap()).unwrap().count(), 1, "no lock is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_replaced_under_load_refuses_no_good_request() {
    let setup = Setup::new();
    let issued = setup.issue("ann");
    let keys = setup.file.open().unwrap();
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let (keys, key) = (keys.clone(), issued.key.expose().clone());
            tokio::spawn(async move {
                for _ in 0..2000 {
                    assert!(verify(&keys, &key).await.is_ok());
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for number in 0..20 {
        setup.issue(&format!("new-{number}"));
        setup.clock.advance(SECOND);
        tokio::task::yield_now().await;
    }
    for asker in askers {
        asker.await.unwrap();
    }
    setup.clock.advance(SECOND);
    assert!(verify(&keys, issued.key.expose()).await.is_ok());
    assert_eq!(keys.uses().len(), 21);
    assert_eq!(keys.uses().iter().map(|used| used.count).sum::<u64>(), 8001);
    assert_eq!(keys.failed_reads(), 0);
}

#[test]
fn names_that_could_not_be_read_again_are_refused() {
    let setup = Setup::new();
    for (issuer, subject) in [("", "ann"), ("keys", ""), ("keys", "a\nb")] {
        let refused = setup.file.issue(NewApiKey::new(issuer, subject));
        assert!(matches!(refused, Err(ApiKeyError::Unfit(_))));
    }
    assert!(setup.file.records().unwrap().is_empty() && !setup.path.exists());
}

/// The example, as an operator calls it.
#[test]
fn the_command_makes_lists_rotates_and_revokes() {
    let setup = Setup::new();
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join("api_keys");
    let run = |arguments: &[&str]| {
        let output = Command::new(&program)
            .arg(&setup.path)
            .args(arguments)
            .env("PALISADE_PEPPER", "a pepper for tests")
            .output()
            .expect("built with: cargo build --example api_keys --features full");
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text.trim().to_owned())
    };
    let id = || setup.file.records().unwrap().last().unwrap().id.clone();
    let (made, first) = run(&["make", "ann", "--tier", "paid", "--scope", "a", "--days", "90"]);
    let first_id = id();
    let (rotated, second) = run(&["rotate", &first_id, "--overlap-hours", "1"]);
    assert!(made && rotated);
    assert!(run(&["revoke", &first_id]).0);
    assert!(!run(&["revoke", "nobody"]).0);
    let (_, listed) = run(&["list"]);
    assert!(listed.contains("\trevoked\tapi-keys\tann\tpaid\ta\t"), "{listed}");
    assert!(listed.contains("\tactive\tapi-keys\tann\tpaid\ta\t"), "{listed}");
    assert!(!listed.contains(&first) && !listed.contains(&second));

    let file = ApiKeyFile::new(&setup.path, &pepper()).unwrap();
    let keys = file.open().unwrap();
    let holds = |key: &str| keys.verify(&Presented::alone(key)).try_now().unwrap().is_ok();
    assert!(!holds(&first) && holds(&second));
}
