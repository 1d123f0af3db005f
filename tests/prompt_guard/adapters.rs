//! Bodies that an adapter of the application reads: they are held to the same rules, pass byte for byte, and what it can't
//! read or write does not pass.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use palisade::{
    inference::{AdapterError, BodyAdapter, BodyTexts, Origin, Unread},
    prompt_guard::{Action, AnswerVerdict, Outcome, Verdict},
};
use tower::{Layer, ServiceExt};

use crate::support::*;

/// Lines of a number, a semicolon and a text. One without a number is a panic, and no text may hold a semicolon.
#[derive(Clone, Copy, Debug)]
struct Table;

impl BodyAdapter for Table {
    fn read_request(&self, body: &Bytes) -> Result<BodyTexts, AdapterError> {
        let body = std::str::from_utf8(body).map_err(|_| AdapterError::new("not UTF-8"))?;
        let mut texts = BodyTexts::new();
        let mut at = 0;
        for line in body.lines() {
            let (number, text) = line.split_once(';').ok_or(AdapterError::new("no semicolon"))?;
            if text.contains(';') {
                return Err(AdapterError::new("a semicolon too many"));
            }
            let number: u32 = number.parse().unwrap();
            let start = at + line.len() - text.len();
            texts.text_at(start..start + text.len(), Origin::User, number);
            at += line.len() + 1;
        }
        texts.model("tables");
        texts.max_output_tokens(50);
        Ok(texts)
    }

    fn reads_answers(&self) -> bool {
        true
    }

    fn read_answer(&self, body: &Bytes) -> Result<BodyTexts, AdapterError> {
        self.read_request(body)
    }
}

/// `message Ask { string system = 1; string prompt = 2; bytes picture = 3; }`, of short fields.
#[derive(Clone, Copy, Debug)]
struct Ask;

impl Ask {
    fn fields(message: &[u8]) -> Option<Vec<(u8, &str)>> {
        let mut fields = Vec::new();
        let mut rest = message;
        while let [tag, length, after @ ..] = rest {
            let (text, after) = after.split_at_checked(usize::from(*length))?;
            fields.push((*tag, std::str::from_utf8(text).ok()?));
            rest = after;
        }
        (rest.is_empty() && fields.iter().all(|(tag, _)| [0x0a, 0x12, 0x1a].contains(tag)))
            .then_some(fields)
    }

    fn message<T: AsRef<str>>(fields: impl IntoIterator<Item = (u8, T)>) -> Bytes {
        let field = |(tag, text): (u8, T)| {
            let text = text.as_ref();
            [&[tag, text.len() as u8], text.as_bytes()].concat()
        };
        fields.into_iter().flat_map(field).collect()
    }
}

impl BodyAdapter for Ask {
    fn read_request(&self, message: &Bytes) -> Result<BodyTexts, AdapterError> {
        let mut texts = BodyTexts::new();
        for (tag, text) in Self::fields(message).ok_or(AdapterError::new("no Ask"))? {
            match tag {
                0x0a => texts.text(text, Origin::System, 0),
                0x12 => texts.text(text, Origin::User, 1),
                _ => texts.unread(Unread::Image),
            }
        }
        Ok(texts)
    }

    fn write_request(&self, message: &Bytes, texts: &[String]) -> Result<Bytes, AdapterError> {
        let fields = Self::fields(message).ok_or(AdapterError::new("no Ask"))?;
        Ok(Self::message(fields.iter().zip(texts).map(|((tag, _), text)| (*tag, text))))
    }

    fn reads_answers(&self) -> bool {
        true
    }

    fn read_answer(&self, message: &Bytes) -> Result<BodyTexts, AdapterError> {
        self.read_request(message)
    }

    fn write_answer(&self, message: &Bytes, texts: &[String]) -> Result<Bytes, AdapterError> {
        self.write_request(message, texts)
    }
}

const METHOD: &str = "/acme.Models/Ask";

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn ask_of(prompt: &str) -> Vec<u8> {
    framed(&Ask::message([(0x0a, "be kind"), (0x12, prompt)]))
}

fn tables() -> palisade::prompt_guard::PromptGuardLayerBuilder {
    guard()
        .body_adapter("/table", Table)
        .grpc_adapter(METHOD, Arc::new(Ask) as Arc<dyn BodyAdapter>)
        .detector(EVIL, Action::Block)
        .detector(MAIL, Action::Redact)
}

#[tokio::test]
async fn what_an_adapter_reads_is_held_to_the_policy() {
    for (path, clean, blocked, masked, expected) in [
        (
            "/v1/table",
            b"1;how are you\r\n2;fine\n".to_vec(),
            b"1;how are you\n2;an evil deed".to_vec(),
            b"1;how are you\n2;a@b.example, a@b.example\n3;so".to_vec(),
            b"1;how are you\n2;[EMAIL], [EMAIL]\n3;so".to_vec(),
        ),
        (
            METHOD,
            ask_of("how are you"),
            ask_of("an evil deed"),
            ask_of("a@b.example, a@b.example"),
            ask_of("[EMAIL], [EMAIL]"),
        ),
    ] {
        let (answer, inner) = ask(tables(), post(path, clean.clone())).await;
        assert_eq!(text(answer).await, "ok", "{path}");
        assert_eq!(inner.only().body, clean, "{path}");

        let (answer, inner) = ask(tables(), post(path, blocked)).await;
        assert_eq!(refusal(&answer).0, "content_blocked", "{path}");
        assert_eq!(answer.headers().get("grpc-status").is_some(), path == METHOD);
        assert!(inner.saw_nothing());

        let request = Request::post(path).header("content-length", masked.len());
        let (_, inner) = ask(tables(), request.body(full(masked)).unwrap()).await;
        let arrived = inner.only();
        assert_eq!(arrived.body, expected, "{path}");
        assert_eq!(arrived.head.headers["content-length"], expected.len().to_string());
        let verdict = arrived.head.extensions.get::<Verdict>().unwrap();
        assert_eq!(verdict.action, Outcome::Sanitize);
    }
}

#[tokio::test]
async fn what_an_adapter_cant_read_is_refused() {
    let compressed = [&[1, 0, 0, 0, 2], &[0x0a, 0][..]].concat();
    let two = [ask_of("a"), ask_of("b")].concat();
    for (path, body) in [
        ("/table", &b"no table"[..]),
        ("/table", b"1;\xff"),
        ("/table", b"one;panics"),
        (METHOD, b"\0\0\0\0\x02\x0a"),
        (METHOD, b"\0\0\0"),
        (METHOD, b"\0\0\0\0\x03\x0a\x09x"),
        (METHOD, b"1;how are you"),
        (METHOD, &compressed),
        (METHOD, &two),
    ] {
        let (answer, inner) = ask(tables(), post(path, body.to_vec())).await;
        assert_eq!(refusal(&answer).0, "unreadable_body", "{body:?}");
        assert!(inner.saw_nothing());
        // Whatever the caller says that it is.
        for content_type in ["application/grpc", "application/json", "text/plain"] {
            let request = Request::post(path).header("content-type", content_type);
            let (answer, inner) = ask(tables(), request.body(full(body.to_vec())).unwrap()).await;
            assert_eq!(refusal(&answer).0, "unreadable_body", "{content_type} {body:?}");
            assert!(inner.saw_nothing());
        }
        // A guard that only reports lets it pass, and says so.
        let (_, inner) = ask(tables().report_only(), post(path, body.to_vec())).await;
        let verdict = inner.only().head.extensions.get::<Verdict>().cloned().unwrap();
        assert_eq!(verdict.code, Some("unreadable_body"));
    }
    let picture = framed(&Ask::message([(0x1a, "pixels")]));
    let (answer, _) = ask(tables(), post(METHOD, picture)).await;
    assert_eq!(refusal(&answer).0, "unreadable_content");
    // Other methods are no business of the adapter's.
    let other = Request::post("/acme.Models/Other").header("content-type", "application/grpc");
    let (answer, _) = ask(tables(), other.body(full(ask_of("a"))).unwrap()).await;
    assert_eq!(refusal(&answer).0, "unreadable_endpoint");
}

/// Says that it wrote what it did not.
#[derive(Debug)]
struct Liar;

impl BodyAdapter for Liar {
    fn read_request(&self, body: &Bytes) -> Result<BodyTexts, AdapterError> {
        let mut texts = BodyTexts::new();
        texts.text(String::from_utf8_lossy(body), Origin::User, 0);
        Ok(texts)
    }

    fn write_request(&self, body: &Bytes, _: &[String]) -> Result<Bytes, AdapterError> {
        Ok(body.clone())
    }
}

/// Gives a place that is not there.
#[derive(Debug)]
struct Lost;

impl BodyAdapter for Lost {
    fn read_request(&self, body: &Bytes) -> Result<BodyTexts, AdapterError> {
        let mut texts = BodyTexts::new();
        texts.text_at(0..body.len() + 1, Origin::User, 0);
        Ok(texts)
    }
}

#[tokio::test]
async fn what_is_written_must_read_as_it_should() {
    for (guard, code) in [
        (guard().body_adapter("/x", Liar).detector(MAIL, Action::Redact), "content_blocked"),
        (guard().body_adapter("/x", Lost).detector(MAIL, Action::Redact), "unreadable_body"),
    ] {
        let (answer, inner) = ask(guard, post("/x", "1;a@b.example")).await;
        assert_eq!(refusal(&answer).0, code);
        assert!(inner.saw_nothing());
    }
}

#[tokio::test]
async fn answers_are_read_by_the_adapter_too() {
    let guarded =
        || tables().output_detector(EVIL, Action::Block).output_detector(MAIL, Action::Redact);
    for (path, request, answer, expected) in [
        ("/table", b"1;hi".to_vec(), b"1;fine".to_vec(), Ok(b"1;fine".to_vec())),
        ("/table", b"1;hi".to_vec(), b"1;a@b.example".to_vec(), Ok(b"1;[EMAIL]".to_vec())),
        ("/table", b"1;hi".to_vec(), b"1;evil".to_vec(), Err("answer_blocked")),
        ("/table", b"1;hi".to_vec(), b"what".to_vec(), Err("unreadable_answer")),
        (METHOD, ask_of("hi"), ask_of("fine"), Ok(ask_of("fine"))),
        (METHOD, ask_of("hi"), ask_of("a@b.example"), Ok(ask_of("[EMAIL]"))),
        (METHOD, ask_of("hi"), ask_of("evil"), Err("answer_blocked")),
        (METHOD, ask_of("hi"), [ask_of("a"), ask_of("b")].concat(), Err("unreadable_answer")),
        (METHOD, ask_of("hi"), Vec::new(), Ok(Vec::new())),
    ] {
        let inner = Inner::default();
        let body = answer.clone();
        let service = guarded().build().unwrap().layer(inner.answering(move || {
            let frame = Ok(http_body::Frame::data(body.clone().into()));
            Response::new(frames(vec![frame, trailers("grpc-status", "0")]))
        }));
        let answered = service.oneshot(post(path, request)).await.unwrap();
        match expected {
            Ok(expected) => {
                assert!(answered.extensions().get::<AnswerVerdict>().is_some());
                let body = http_body_util::BodyExt::collect(answered.into_body()).await.unwrap();
                assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
                assert_eq!(body.to_bytes(), expected, "{path}");
            }
            Err(code) => assert_eq!(refusal(&answered).0, code, "{path}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_the_adapter_does_not_read_is_read_by_its_type_or_withheld() {
    let guarded = |adapter: fn() -> palisade::prompt_guard::PromptGuardLayerBuilder| {
        adapter().output_detector(EVIL, Action::Block)
    };
    for (content_type, body, expected) in [
        ("application/json", r#"{"any":"evil"}"#, Some("answer_blocked")),
        ("application/json", r#"{"any":"fine"}"#, None),
        ("text/plain", "evil", Some("answer_blocked")),
        ("application/octet-stream", "fine", Some("unreadable_answer")),
    ] {
        let inner = Inner::default();
        let layer = guarded(|| guard().body_adapter("/x", Liar)).build().unwrap();
        let service = layer.layer(inner.answering(move || {
            Response::builder().header("content-type", content_type).body(full(body)).unwrap()
        }));
        let answer = service.oneshot(post("/x", "hi")).await.unwrap();
        let code = answer.extensions().get::<palisade::Rejection>().map(|it| it.code());
        assert_eq!(code, expected, "{content_type} {body}");
    }
    let inner = Inner::default();
    let layer = guarded(|| guard().grpc_adapter("/x", Liar)).build().unwrap();
    let service = layer.layer(inner.answering(|| Response::new(full(ask_of("fine")))));
    let answer = service.oneshot(post("/x", framed(b"hi"))).await.unwrap();
    assert_eq!(refusal(&answer).0, "unreadable_answer");
}

#[tokio::test]
async fn values_are_put_back_into_what_an_adapter_reads() {
    for (path, request) in
        [("/table", b"1;I am a@b.example".to_vec()), (METHOD, ask_of("I am a@b.example"))]
    {
        let layer = guard()
            .body_adapter("/table", Table)
            .grpc_adapter(METHOD, Ask)
            .detector(MAIL, Action::Pseudonymize);
        // The model says what it was told.
        let service = layer.build().unwrap().layer(tower::service_fn(
            async |request: Request<palisade::body::RequestBody<AnyBody>>| {
                let told = http_body_util::BodyExt::collect(request.into_body()).await.unwrap();
                let told = told.to_bytes();
                assert!(!String::from_utf8_lossy(&told).contains("a@b.example"));
                Ok::<_, std::convert::Infallible>(Response::new(full(told)))
            },
        ));
        let answer = service.oneshot(post(path, request.clone())).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        assert_eq!(body, request, "{path}");
    }
}

#[tokio::test]
async fn what_an_adapter_reads_is_reserved_for() {
    let kept = Arc::new(Kept::default());
    let mut request = post("/table", "1;four words of text\n2;and three more");
    kept.on(&mut request);
    let (answer, _) = ask(guard().body_adapter("/table", Table), request).await;
    assert_eq!(text(answer).await, "ok");
    let refined = kept.refined.lock().unwrap().pop().unwrap();
    let expected: u64 = ["four words of text", "and three more"]
        .iter()
        .map(|text| {
            palisade::inference::TokenEstimator::estimate(&palisade::inference::ByteClasses, text)
        })
        .sum();
    assert_eq!((refined.input, refined.output), (expected, 50));
}

#[test]
fn a_path_without_a_slash_is_no_path() {
    assert!(guard().body_adapter("table", Table).build().is_err());
    assert!(guard().grpc_adapter("/", Ask).build().is_err());
}

mod tonic_server {
    //! A real service and client: gRPC health checks, whose requests hold one text.

    use tonic::{
        Code,
        transport::{Endpoint, Server},
    };
    use tonic_health::{
        pb::{HealthCheckRequest, health_client::HealthClient},
        server::health_reporter,
    };

    use super::*;

    /// `message HealthCheckRequest { string service = 1; }`
    #[derive(Debug)]
    struct Health;

    impl BodyAdapter for Health {
        fn read_request(&self, message: &Bytes) -> Result<BodyTexts, AdapterError> {
            Ask.read_request(message)
        }

        fn write_request(&self, message: &Bytes, texts: &[String]) -> Result<Bytes, AdapterError> {
            Ask.write_request(message, texts)
        }
    }

    #[tokio::test]
    async fn unary_calls_pass_are_blocked_and_are_masked() {
        let (reporter, service) = health_reporter();
        for name in ["models", "[EMAIL]"] {
            reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
        }
        let guard = tables().grpc_adapter("/grpc.health.v1.Health/Check", Health).build().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = Server::builder().layer(guard).add_service(service);
        let server = tokio::spawn(server.serve_with_incoming(incoming));

        let mut client = HealthClient::new(
            Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy(),
        );
        let mut check = async |service: &str| {
            let request = HealthCheckRequest { service: service.to_owned() };
            client.check(request).await.map(|answer| answer.into_inner().status)
        };
        assert_eq!(check("models").await.unwrap(), 1);
        assert_eq!(check("unheard of").await.unwrap_err().code(), Code::NotFound);
        // What arrives is another name, which is one that serves.
        assert_eq!(check("a@b.example").await.unwrap(), 1);
        let blocked = check("evil").await.unwrap_err();
        assert_eq!(blocked.code(), Code::PermissionDenied);
        // A method that no adapter reads.
        let request = HealthCheckRequest { service: "models".to_owned() };
        assert_eq!(client.watch(request).await.unwrap_err().code(), Code::InvalidArgument);
        server.abort();
    }
}
