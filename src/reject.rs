//! Refusals: what was wrong, and the answer that says so in the caller's own wire format.

mod format;
mod grpc_status;

use std::{borrow::Cow, fmt::Debug, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

pub use self::format::ErrorFormat;
use crate::{body::ResponseBody, observe, route::Routes};

/// Why a request was refused. Decides the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// No usable credential, or one that does not hold: 401, gRPC 16. The caller's fault.
    Unauthenticated,
    /// The caller is known and may not: 403, gRPC 7. The caller's fault.
    Forbidden,
    /// A credential is there, and can't be read: 400, gRPC 16. The caller's fault, or of who forwarded it.
    MalformedCredential,
    /// The request can't be read, or carries what it must not: 400, gRPC 3. The caller's fault.
    BadRequest,
    /// The body is larger than the cap: 413, gRPC 8. The caller's fault.
    TooLarge,
    /// The body has an encoding or a shape that can't be inspected: 415, gRPC 3. The caller's fault.
    Unreadable,
    /// The body did not arrive in time: 408, gRPC 4. The caller's fault.
    TimedOut,
    /// The caller's own limit is reached: 429, gRPC 8.
    RateLimited,
    /// The prompt or the answer breaks a policy: 403, gRPC 7. The caller's fault.
    Blocked,
    /// The request is for another host than its connection: 421, gRPC 7. The caller's fault.
    Misdirected,
    /// The request may be a replay, and is to be sent again: 425, gRPC 14. The caller's fault.
    TooEarly,
    /// What a check needs is out of reach: 503, gRPC 14. Our fault.
    Unavailable,
    /// As much is being served as can be: 503, gRPC 14, and 529 in Anthropic's format. Nobody's fault, and not the
    /// caller's limit.
    AtCapacity,
    /// The layers are stacked wrongly: 500, gRPC 13. The embedding application's fault.
    Misconfigured,
}

impl RejectionKind {
    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Blocked => StatusCode::FORBIDDEN,
            Self::BadRequest | Self::MalformedCredential => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooEarly => StatusCode::TOO_EARLY,
            Self::Unavailable | Self::AtCapacity => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misconfigured => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The status code of a gRPC answer.
    #[must_use]
    pub fn grpc_code(self) -> u8 {
        match self {
            Self::BadRequest | Self::Unreadable => 3,
            Self::TimedOut => 4,
            Self::Forbidden | Self::Blocked | Self::Misdirected => 7,
            Self::TooLarge | Self::RateLimited => 8,
            Self::Misconfigured => 13,
            Self::Unavailable | Self::AtCapacity | Self::TooEarly => 14,
            Self::Unauthenticated | Self::MalformedCredential => 16,
        }
    }
}

/// A refusal. Stands in the extensions of every answer that refuses, so that outer layers see why.
#[derive(Clone, Debug)]
pub struct Rejection {
    kind: RejectionKind,
    code: &'static str,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    violated_limit: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Rejection {
    /// A refusal of `kind`. `code` is for programs (`invalid_token`), from a closed set; `message` is for
    /// people and says what to do: neither may hold anything that the caller must not see.
    pub fn new(
        kind: RejectionKind,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind,
            code,
            message: message.into(),
            retry_after: None,
            violated_limit: None,
            headers: Vec::new(),
        }
    }

    /// When to try again. Sent as `Retry-After` in whole seconds, rounded up, at least 1; as `retry-after-ms`, which the
    /// OpenAI and Anthropic SDKs read first, in milliseconds, rounded up; over gRPC also as a `google.rpc.RetryInfo`.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Which limit is reached, by its name in `RateLimit-Policy`. Told in `problem+json`, and over gRPC.
    #[must_use]
    pub fn with_violated_limit(mut self, name: impl Into<String>) -> Self {
        self.violated_limit = Some(name.into());
        self
    }

    /// Adds a header to the answer: a challenge, a limit.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.add_header(name, value);
        self
    }

    pub(crate) fn add_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.push((name, value));
    }

    /// Why.
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// The reason for programs, from a closed set.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The reason for people, as the caller sees it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When to try again, if that would help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Which limit is reached, if it is known.
    #[must_use]
    pub fn violated_limit(&self) -> Option<&str> {
        self.violated_limit.as_deref()
    }

    /// The answer. Counted and logged here, once, under the name of the `layer` that refuses.
    pub(crate) fn into_response<B>(
        self,
        layer: &'static str,
        format: ErrorFormat,
        routes: &Routes,
    ) -> Response<ResponseBody<B>> {
        observe::refused(layer, &self);
        let response = match routes.answer() {
            Some(answer) => answer.respond(&self, format),
            None => format.respond(&self),
        };
        let (mut parts, body) = response.into_parts();
        for (name, value) in &self.headers {
            parts.headers.append(name.clone(), value.clone());
        }
        if let Some(after) = self.retry_after {
            parts.headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
            parts.headers.insert(RETRY_AFTER_MS, HeaderValue::from(whole_millis(after)));
        }
        parts.extensions.insert(self);
        Response::from_parts(parts, ResponseBody::refusal(body))
    }
}

/// Rounded up and at least 1: a client that comes back too early, or at once, is refused again.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    let up = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    up.max(1)
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Shapes refusals as the application likes: see [`Routes::answer_with`]. The rejection's headers
/// and `Retry-After` are added to the answer whatever it returns.
pub trait Respond: Debug + Send + Sync + 'static {
    /// The answer to a refused request. `format` is what the endpoint's clients expect;
    /// [`ErrorFormat::respond`] makes the answer that would be sent without this.
    fn respond(&self, rejection: &Rejection, format: ErrorFormat) -> Response<Bytes>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), expected);
        }
        for (nanos, expected) in [(0, 1), (1, 1), (1_000_001, 2)] {
            assert_eq!(whole_millis(Duration::from_nanos(nanos)), expected);
        }
    }
}
