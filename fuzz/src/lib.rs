//! What the fuzz targets share: who signs, what is asked, and what an answer must look like. The keys are made for
//! these targets alone.

pub mod guard;

use std::{collections::HashSet, convert::Infallible, pin::pin, sync::Arc};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use palisade::{
    Identity, Rejection, Secret,
    clock::ManualClock,
    jwt::{JwtAuthLayer, KeySet, ResourceServer, ResourceServerBuilder},
};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tower::{Layer as _, ServiceExt as _, service_fn};

pub const AUDIENCE: &str = "https://llm.example";
pub const PATH: &str = "/v1/chat/completions";
/// The time of every target, in seconds since the Unix epoch.
pub const NOW: u64 = 1_800_000_000;

/// Of the issuers with a shared secret.
pub const SECRET: &[u8; 32] = b"a secret that is kept by nobody.";

/// Public keys of an issuer: Ed25519, P-256 and RSA. Nobody has the private ones.
pub fn public_keys() -> KeySet {
    KeySet::from_json(include_str!("keys.json")).unwrap()
}

pub fn secret() -> Secret<Vec<u8>> {
    Secret::new(SECRET.to_vec())
}

/// A resource server without issuers, whose clock stands at `NOW`.
pub fn server() -> ResourceServerBuilder {
    let now = std::time::Duration::from_secs(NOW);
    ResourceServer::builder().clock(Arc::new(ManualClock::at(now)))
}

/// A JWS by the shared secret, with whatever is wrong with header and payload.
pub fn sign_hs256(header: &[u8], payload: &[u8]) -> String {
    sign(header, payload, |text| {
        let mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap().chain_update(text);
        mac.finalize().into_bytes().to_vec()
    })
}

/// A JWS by a client's Ed25519 key.
pub fn sign_ed25519(header: &[u8], payload: &[u8]) -> String {
    let key = SigningKey::from_bytes(SECRET);
    sign(header, payload, |text| key.sign(text).to_vec())
}

fn sign(header: &[u8], payload: &[u8], by: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", base64(header), base64(payload));
    let signature = base64(&by(signed.as_bytes()));
    format!("{signed}.{signature}")
}

pub fn base64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

/// The two texts that an input is to be signed as: one that starts with `{` is the JSON of a header, a line break, and
/// the JSON of the claims.
pub fn to_sign(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    input.starts_with(b"{").then(|| (&input[..end], &input[end + 1..]))
}

/// A JSON object in which no name stands twice. Otherwise than the library this looks at the text: in JSON that is
/// known to be some, a string before a colon is a name.
pub fn unambiguous(text: &[u8]) -> Option<Map<String, Value>> {
    let Ok(Value::Object(object)) = serde_json::from_slice(text) else { return None };
    let mut open = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'{' | b'[' => open.push(HashSet::new()),
            b'}' | b']' => drop(open.pop()),
            b'"' => {
                let start = at;
                at += 1;
                while text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                let is_name = text[at + 1..].trim_ascii_start().starts_with(b":");
                let name: String = serde_json::from_slice(&text[start..=at]).unwrap();
                if is_name && !open.last_mut().unwrap().insert(name) {
                    return None;
                }
            }
            _ => {}
        }
        at += 1;
    }
    Some(object)
}

/// What came of a request.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub challenges: Vec<String>,
    /// The code and the message of a refusal.
    pub refusal: Option<(&'static str, String)>,
    /// Who is behind the layer, if anybody.
    pub user: Option<User>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub issuer: String,
    pub subject: String,
    pub expires_at: Option<u64>,
}

/// Asks a service behind the layer. There is nothing to wait for.
pub fn ask(layer: &JwtAuthLayer, headers: &[(HeaderName, &HeaderValue)]) -> Answer {
    let mut request = Request::post(PATH).body(()).unwrap();
    for (name, value) in headers {
        request.headers_mut().append(name, (*value).clone());
    }
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let mut response = Response::new(());
        let user = Identity::of(request.extensions()).and_then(Identity::user);
        let user = user.map(|user| User {
            issuer: user.issuer().to_owned(),
            subject: user.subject().to_owned(),
            expires_at: user.expires_at(),
        });
        response.extensions_mut().insert(user);
        Ok::<_, Infallible>(response)
    }));
    let mut asked = pin!(service.oneshot(request));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Ok(response)) = asked.as_mut().poll(&mut context) else {
        panic!("no answer at once");
    };
    let refusal = response.extensions().get::<Rejection>();
    let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
    Answer {
        status: response.status(),
        challenges: challenges.map(|value| value.to_str().unwrap().to_owned()).collect(),
        refusal: refusal.map(|refusal| (refusal.code(), refusal.message().to_owned())),
        user: response.extensions().get::<Option<User>>().cloned().flatten(),
    }
}

impl Answer {
    /// Who was let through, if anybody was. Otherwise the answer is a refusal in one of these `messages`, with a
    /// challenge for each scheme, which are made of fixed parts and so have nothing of the request.
    pub fn user_or_refusal(&self, messages: &[&str]) -> Option<&User> {
        let Some((code, message)) = &self.refusal else {
            assert_eq!((self.status, self.challenges.len()), (StatusCode::OK, 0));
            return Some(self.user.as_ref().expect("nobody was let through"));
        };
        let status = match *code {
            "invalid_request" => 400,
            "insufficient_scope" => 403,
            _ => 401,
        };
        assert_eq!((self.status.as_u16(), &self.user), (status, &None), "{code}");
        assert!(messages.contains(&message.as_str()), "{message}");
        assert_eq!(self.challenges.len(), 2);
        let error = format!("error=\"{code}\"");
        let description = format!("error_description=\"{message}\"");
        let scope = "scope=\"llm:infer\"";
        for (challenge, start) in
            self.challenges.iter().zip(["Bearer realm=\"inference\"", "DPoP "])
        {
            let mut rest = challenge.strip_prefix(start).expect(challenge).to_owned();
            for fixed in [&error, &description, scope, ALGORITHMS] {
                rest = rest.replacen(fixed, "", 1);
            }
            assert_eq!(rest.trim_matches([',', ' ']), "", "{challenge}");
        }
        None
    }
}

/// Those that DPoP proofs may be signed with.
const ALGORITHMS: &str = "algs=\"RS256 PS256 ES256 EdDSA\"";

/// A certificate as PEM and RFC 9440 write it: base64 with padding.
pub fn written(der: &[u8]) -> String {
    BASE64_STANDARD.encode(der)
}

/// The text with its `%XX` read once, and without white space.
pub fn without_escapes(text: &str) -> String {
    let plain = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    plain.split_ascii_whitespace().collect()
}

pub fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
