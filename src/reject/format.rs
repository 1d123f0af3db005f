//! Refusals in the wire formats of the APIs that clients speak.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{Rejection, RejectionKind, grpc_status};

/// The shape of an error, as the clients of an API read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorFormat {
    /// `{"error":{"message","type","param","code"}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`
    Anthropic,
    /// `{"error","error_type"}`, as text-generation-inference answers. `huggingface_hub` picks its
    /// exception by `error_type`, whatever the status.
    Tgi,
    /// `application/problem+json`, RFC 9457.
    Problem,
    /// HTTP 200 with `grpc-status` and `grpc-message` in the headers and no body: a trailers-only
    /// answer of the gRPC protocol.
    Grpc,
}

impl ErrorFormat {
    /// The answer to a refused request in this shape, with `Retry-After` and the rejection's own
    /// headers still to be added.
    #[must_use]
    pub fn respond(self, rejection: &Rejection) -> Response<Bytes> {
        if self == Self::Grpc {
            return grpc(rejection);
        }
        let content_type = match self {
            Self::Problem => "application/problem+json",
            _ => "application/json",
        };
        let mut response = Response::new(Bytes::from(self.error_json(rejection).to_string()));
        *response.status_mut() = match (self, rejection.kind) {
            // Anthropic's SDK raises its `OverloadedError` by it.
            (Self::Anthropic, RejectionKind::AtCapacity) => overloaded(),
            (_, kind) => kind.status(),
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    /// The refusal as an event of a stream that has begun, in the shape that the API's clients
    /// raise from.
    pub(crate) fn stream_event(self, rejection: &Rejection) -> Bytes {
        let name = match self {
            Self::Anthropic => "event: error\n",
            _ => "",
        };
        Bytes::from(format!("{name}data: {}\n\n", self.error_json(rejection)))
    }

    /// The line that ends an answer of one JSON value a line.
    pub(crate) fn stream_line(self, rejection: &Rejection) -> Bytes {
        Bytes::from(format!("{}\n", self.error_json(rejection)))
    }

    fn error_json(self, rejection: &Rejection) -> Value {
        let (kind, code, message) = (rejection.kind, rejection.code, rejection.message());
        match self {
            Self::OpenAi => json!({"error": {
                "message": message, "type": openai_type(kind), "param": null, "code": code,
            }}),
            Self::Anthropic => json!({"type": "error", "error": {
                "type": anthropic_type(kind), "message": message,
            }}),
            Self::Tgi => json!({"error": message, "error_type": tgi_type(kind)}),
            Self::Problem | Self::Grpc => problem(rejection),
        }
    }
}

/// RFC 9457, with the problem types of draft-ietf-httpapi-ratelimit-headers, section 6.
fn problem(rejection: &Rejection) -> Value {
    let status = rejection.kind.status();
    let (problem_type, title) = match (rejection.kind, &rejection.violated_limit) {
        (RejectionKind::RateLimited, Some(_)) => (
            "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "Request cannot be satisfied as assigned quota has been exceeded",
        ),
        (RejectionKind::AtCapacity, _) => (
            "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
            "Request cannot be satisfied due to temporary server capacity constraints",
        ),
        _ => ("about:blank", status.canonical_reason().unwrap_or_default()),
    };
    let mut problem = json!({
        "type": problem_type, "title": title, "status": status.as_u16(),
        "detail": rejection.message(), "code": rejection.code,
    });
    if let (Some(name), Some(members)) = (&rejection.violated_limit, problem.as_object_mut()) {
        members.insert("violated-policies".into(), json!([name]));
    }
    problem
}

fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

fn openai_type(kind: RejectionKind) -> &'static str {
    match kind {
        RejectionKind::Unauthenticated => "authentication_error",
        RejectionKind::Forbidden => "permission_error",
        RejectionKind::RateLimited => "rate_limit_error",
        RejectionKind::Unavailable | RejectionKind::AtCapacity | RejectionKind::Misconfigured => {
            "server_error"
        }
        _ => "invalid_request_error",
    }
}

fn anthropic_type(kind: RejectionKind) -> &'static str {
    match kind {
        RejectionKind::Unauthenticated => "authentication_error",
        RejectionKind::Forbidden | RejectionKind::Blocked => "permission_error",
        RejectionKind::RateLimited => "rate_limit_error",
        RejectionKind::TooLarge => "request_too_large",
        RejectionKind::AtCapacity => "overloaded_error",
        RejectionKind::Unavailable | RejectionKind::Misconfigured => "api_error",
        _ => "invalid_request_error",
    }
}

fn tgi_type(kind: RejectionKind) -> &'static str {
    match kind {
        RejectionKind::Unauthenticated => "authentication",
        RejectionKind::Forbidden => "permission",
        RejectionKind::Blocked => "blocked",
        // What the server itself says with 429: its clients back off by it.
        RejectionKind::RateLimited | RejectionKind::Unavailable | RejectionKind::AtCapacity => {
            "overloaded"
        }
        RejectionKind::Misconfigured => "internal",
        _ => "validation",
    }
}

fn grpc(rejection: &Rejection) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(rejection.kind.grpc_code())));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(rejection.message())) {
        headers.insert("grpc-message", message);
    }
    if let Some(details) = grpc_status::details(rejection) {
        headers.insert("grpc-status-details-bin", details);
    }
    response
}

/// As the gRPC protocol has it: all but printable ASCII is `%XX`, and so is `%`.
fn percent_encoded(message: &str) -> String {
    message.bytes().fold(String::with_capacity(message.len()), |mut out, byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection() -> Rejection {
        Rejection::new(RejectionKind::RateLimited, "rate_limit_exceeded", "100% used")
    }

    fn body(format: ErrorFormat) -> Value {
        serde_json::from_slice(format.respond(&rejection()).body()).unwrap()
    }

    #[test]
    fn each_format_is_the_one_its_clients_read() {
        let openai = body(ErrorFormat::OpenAi);
        assert_eq!(openai["error"]["type"], "rate_limit_error");
        assert_eq!(openai["error"]["code"], "rate_limit_exceeded");
        assert_eq!(body(ErrorFormat::Anthropic)["type"], "error");
        assert_eq!(body(ErrorFormat::Anthropic)["error"]["type"], "rate_limit_error");
        assert_eq!(body(ErrorFormat::Tgi)["error_type"], "overloaded");
        assert_eq!(body(ErrorFormat::Problem)["status"], 429);
    }

    #[test]
    fn the_callers_limit_and_the_servers_capacity_are_different_answers() {
        let limited = rejection().with_violated_limit("tokens-minute");
        let full = Rejection::new(RejectionKind::AtCapacity, "capacity_exhausted", "Full.");
        let problem = |rejection: &Rejection| -> Value {
            serde_json::from_slice(ErrorFormat::Problem.respond(rejection).body()).unwrap()
        };
        let limited = problem(&limited);
        assert!(limited["type"].as_str().unwrap().ends_with("#quota-exceeded"));
        assert_eq!(limited["violated-policies"], json!(["tokens-minute"]));
        assert!(problem(&full)["type"].as_str().unwrap().ends_with("#temporary-reduced-capacity"));
        let anthropic = ErrorFormat::Anthropic.respond(&full);
        assert_eq!(anthropic.status(), 529);
        assert!(String::from_utf8_lossy(anthropic.body()).contains("overloaded_error"));
        assert_eq!(ErrorFormat::OpenAi.respond(&full).status(), 503);
        assert_eq!(ErrorFormat::Grpc.respond(&full).headers()["grpc-status"], "14");
    }

    #[test]
    fn grpc_answers_with_headers_alone() {
        let response = ErrorFormat::Grpc.respond(&rejection());
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(response.headers()["grpc-message"], "100%25 used");
        assert!(response.body().is_empty());
    }
}
