//! Which requests are guarded, and which endpoint each of them is for.
//!
//! Everything is guarded but what an explicit list exempts. Endpoints are told by their route, not
//! by a content type, which inference servers ignore: by the router's matched path where there is
//! one, else by the path, and by the end of it, since everybody mounts at a prefix.

mod plain;

use std::sync::Arc;

use http::{Method, header};

pub(crate) use self::plain::readings;
use crate::{
    connection,
    reject::{ErrorFormat, Respond},
};

/// What a route speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `POST …/chat/completions` of the OpenAI API.
    OpenAiChat,
    /// `POST …/completions` of the OpenAI API.
    OpenAiCompletions,
    /// `POST …/responses` of the OpenAI API.
    OpenAiResponses,
    /// `POST …/embeddings` of the OpenAI API, and `/embed`.
    OpenAiEmbeddings,
    /// `POST …/messages` of the Anthropic API.
    AnthropicMessages,
    /// `POST …/generate`, `…/generate_stream` and `…/invocations`, in the shapes of FastAPI
    /// services, text-generation-inference and SGLang.
    Generate,
    /// Any gRPC method: told by its content type, on a path that is none of the above.
    Grpc,
    /// Something else.
    Other,
}

impl Endpoint {
    /// The shape in which this endpoint's clients expect errors.
    #[must_use]
    pub fn error_format(self) -> ErrorFormat {
        match self {
            Self::OpenAiChat
            | Self::OpenAiCompletions
            | Self::OpenAiResponses
            | Self::OpenAiEmbeddings => ErrorFormat::OpenAi,
            Self::AnthropicMessages => ErrorFormat::Anthropic,
            Self::Generate => ErrorFormat::Tgi,
            Self::Grpc => ErrorFormat::Grpc,
            Self::Other => ErrorFormat::Problem,
        }
    }
}

/// What a layer does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Passed on untouched.
    Exempt,
    /// Held to the layer's rules.
    Guarded(Endpoint),
}

/// The routes of a server: all guarded, but those exempted by name.
///
/// Cheap to clone. Give the same one to every layer.
///
/// ```
/// use palisade::route::{Endpoint, Routes};
///
/// let routes = Routes::guard_all()
///     .exempt("/healthz")
///     .exempt("/metrics")
///     .endpoint("/v2/chat", Endpoint::OpenAiChat);
/// ```
#[derive(Clone, Debug)]
pub struct Routes(Arc<Table>);

#[derive(Clone, Debug)]
struct Table {
    exempt: Vec<String>,
    exempt_preflight: bool,
    /// By the end of the path; the application's own before ours.
    endpoints: Vec<(String, Endpoint)>,
    answer: Option<Arc<dyn Respond>>,
}

impl Default for Routes {
    fn default() -> Self {
        Self::guard_all()
    }
}

impl Routes {
    /// Guards every request but CORS preflights: an `OPTIONS` with `Access-Control-Request-Method`,
    /// which browsers send without credentials and which reaches no handler's logic. One that has a
    /// body, or asks to count as another method, is none.
    #[must_use]
    pub fn guard_all() -> Self {
        Self(Arc::new(Table {
            exempt: Vec::new(),
            exempt_preflight: true,
            endpoints: Vec::new(),
            answer: None,
        }))
    }

    /// Lets requests of this path through unguarded. The whole path, or the router's pattern for it
    /// (`/files/{name}`); never a prefix, and nothing is normalised: `/healthz/` is not `/healthz`.
    #[must_use]
    pub fn exempt(mut self, path: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).exempt.push(path.into());
        self
    }

    /// Guards CORS preflights too. By default they pass.
    #[must_use]
    pub fn guard_preflight(mut self) -> Self {
        Arc::make_mut(&mut self.0).exempt_preflight = false;
        self
    }

    /// Says what the paths that end in `suffix` speak, whole segments only. Goes before the
    /// well-known paths, and the last one said goes first.
    #[must_use]
    pub fn endpoint(mut self, suffix: impl Into<String>, endpoint: Endpoint) -> Self {
        Arc::make_mut(&mut self.0).endpoints.insert(0, (suffix.into(), endpoint));
        self
    }

    /// Lets the application shape refusals itself. By default they have the endpoint's
    /// [`ErrorFormat`].
    #[must_use]
    pub fn answer_with(mut self, answer: impl Respond) -> Self {
        Arc::make_mut(&mut self.0).answer = Some(Arc::new(answer));
        self
    }

    pub(crate) fn answer(&self) -> Option<&dyn Respond> {
        self.0.answer.as_deref()
    }

    /// What to do with the request.
    pub(crate) fn classify<B>(&self, request: &http::Request<B>) -> Route {
        if self.0.exempt_preflight && is_preflight(request) {
            return Route::Exempt;
        }
        self.classify_path(request)
    }

    /// What to do with the request, were it no preflight: one may have a body that its headers don't
    /// tell of.
    pub(crate) fn classify_path<B>(&self, request: &http::Request<B>) -> Route {
        let (table, headers) = (&*self.0, request.headers());
        let (matched, path) =
            (connection::matched_path(request.extensions()), request.uri().path());
        if table.exempt.iter().any(|exempt| exempt == matched.unwrap_or(path)) {
            return Route::Exempt;
        }
        Route::Guarded(table.endpoint(matched, path, headers))
    }
}

/// Whether a browser could send this as a preflight. It never gives one a body or headers of its own.
fn is_preflight<B>(request: &http::Request<B>) -> bool {
    const OTHER_METHOD: [&str; 3] =
        ["x-http-method-override", "x-http-method", "x-method-override"];
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !OTHER_METHOD.iter().any(|name| headers.contains_key(*name))
}

impl Table {
    /// The content type, which is the caller's to choose, comes last.
    fn endpoint(&self, matched: Option<&str>, path: &str, headers: &http::HeaderMap) -> Endpoint {
        let by_path = by_path(matched, path, |path| self.speaks(path));
        let by_type = || if is_grpc(headers) { Endpoint::Grpc } else { Endpoint::Other };
        by_path.unwrap_or_else(by_type)
    }

    fn speaks(&self, path: &str) -> Option<Endpoint> {
        let own = self.endpoints.iter().find(|(suffix, _)| ends_in_segments(path, suffix));
        let known = || {
            let path = path.strip_suffix('/').unwrap_or(path);
            WELL_KNOWN.iter().find(|(suffix, _)| path.ends_with(suffix)).map(|known| known.1)
        };
        own.map(|own| own.1).or_else(known)
    }
}

/// `application/grpc`, alone or with a `+suffix` or parameters; not `application/grpc-web`, whose
/// clients read HTTP.
fn is_grpc(headers: &http::HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some(content_type) = headers.get(header::CONTENT_TYPE).map(AsRef::as_ref) else {
        return false;
    };
    let content_type: &[u8] = content_type;
    let Some((start, rest)) = content_type.split_at_checked(GRPC.len()) else { return false };
    start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// By the router's pattern where there is one, and by the path itself under one that catches all and so says nothing.
pub(crate) fn by_path<T>(
    matched: Option<&str>,
    path: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    match matched {
        Some(pattern) if pattern.contains("{*") => find(pattern).or_else(|| find(path)),
        Some(pattern) => find(pattern),
        None => find(path),
    }
}

/// Whether `path` ends in `suffix` at the border of a segment, a trailing slash set aside.
pub(crate) fn ends_in_segments(path: &str, suffix: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    let suffix = suffix.strip_suffix('/').unwrap_or(suffix);
    match path.strip_suffix(suffix) {
        Some(before) => before.is_empty() || suffix.starts_with('/') || before.ends_with('/'),
        None => false,
    }
}

/// Whether `path` begins with `prefix` up to the border of a segment.
pub(crate) fn begins_with_segments(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The first that fits, so the longer of two that share an end stands first. Each begins at the border of a segment.
const WELL_KNOWN: &[(&str, Endpoint)] = &[
    ("/chat/completions", Endpoint::OpenAiChat),
    ("/completions", Endpoint::OpenAiCompletions),
    ("/responses", Endpoint::OpenAiResponses),
    ("/embeddings", Endpoint::OpenAiEmbeddings),
    ("/embed", Endpoint::OpenAiEmbeddings),
    ("/messages", Endpoint::AnthropicMessages),
    ("/generate", Endpoint::Generate),
    ("/generate_stream", Endpoint::Generate),
    ("/invocations", Endpoint::Generate),
];

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn endpoint(path: &str) -> Route {
        Routes::guard_all().classify(&Request::post(path).body(()).unwrap())
    }

    #[test]
    fn endpoints_are_told_by_the_end_of_the_path() {
        for (path, expected) in [
            ("/v1/chat/completions", Endpoint::OpenAiChat),
            ("/openai/v1/chat/completions/", Endpoint::OpenAiChat),
            ("/v1/completions", Endpoint::OpenAiCompletions),
            ("/generate_stream", Endpoint::Generate),
            ("/router/7/generate", Endpoint::Generate),
            ("/regenerate", Endpoint::Other),
            ("/", Endpoint::Other),
        ] {
            assert_eq!(endpoint(path), Route::Guarded(expected), "{path}");
        }
    }

    #[test]
    fn grpc_is_told_by_its_content_type_on_paths_that_are_not_known() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let request = |path| {
                let request = Request::post(path).header("content-type", content_type);
                Routes::guard_all().classify(&request.body(()).unwrap())
            };
            let is_grpc = request("/pkg.Models/Ask") == Route::Guarded(Endpoint::Grpc);
            assert_eq!(is_grpc, expected, "{content_type}");
            assert_eq!(request("/generate"), Route::Guarded(Endpoint::Generate));
        }
    }

    #[test]
    fn only_the_exact_path_is_exempt() {
        let routes = Routes::guard_all().exempt("/healthz");
        let exempt =
            |path: &str| routes.classify(&Request::get(path).body(()).unwrap()) == Route::Exempt;
        assert!(exempt("/healthz"));
        assert!(exempt("/healthz?full"));
        for path in
            ["/healthz/", "//healthz", "/healthz/x", "/x/healthz", "/health%7A", "/x/../healthz"]
        {
            assert!(!exempt(path), "{path}");
        }
    }

    #[test]
    fn a_preflight_passes_and_a_bare_options_does_not() {
        let bare = Request::options("/generate").body(()).unwrap();
        assert_eq!(Routes::guard_all().classify(&bare), Route::Guarded(Endpoint::Generate));
        let preflight = Request::options("/generate")
            .header("access-control-request-method", "POST")
            .body(())
            .unwrap();
        assert_eq!(Routes::guard_all().classify(&preflight), Route::Exempt);
        assert_ne!(Routes::guard_all().guard_preflight().classify(&preflight), Route::Exempt);
    }

    #[test]
    fn a_request_in_the_guise_of_a_preflight_is_guarded() {
        for (name, value, exempt) in [
            ("content-length", "0", true),
            ("content-length", "9", false),
            ("transfer-encoding", "chunked", false),
            ("x-http-method-override", "POST", false),
            ("X-HTTP-Method", "POST", false),
            ("x-method-override", "POST", false),
        ] {
            let request = Request::options("/generate")
                .header("access-control-request-method", "POST")
                .header(name, value);
            let route = Routes::guard_all().classify(&request.body(()).unwrap());
            assert_eq!(route == Route::Exempt, exempt, "{name}: {value}");
        }
    }

    #[test]
    fn the_applications_endpoints_go_first() {
        let routes = Routes::guard_all().endpoint("/completions", Endpoint::Generate);
        let request = Request::post("/v1/chat/completions").body(()).unwrap();
        assert_eq!(routes.classify(&request), Route::Guarded(Endpoint::Generate));
    }
}
