//! How an issuer is asked.

use std::{
    fmt::{self, Debug},
    sync::Arc,
};

use bytes::Bytes;
use http::HeaderValue;

use super::FetchError;
use crate::future::ReadyOr;

/// Puts questions to an introspection endpoint. `HttpFetch` (feature `http-client`) is one; whoever must show a client
/// certificate there, or sign for this server (`private_key_jwt`), writes another.
///
/// ```
/// use palisade::{future::ReadyOr, jwt::{FetchError, IntrospectionClient, IntrospectionRequest}};
///
/// /// Knows one token.
/// #[derive(Debug)]
/// struct Known;
///
/// impl IntrospectionClient for Known {
///     fn introspect(&self, request: &IntrospectionRequest<'_>) -> ReadyOr<Result<bytes::Bytes, FetchError>> {
///         let active = request.form.starts_with("token=of-alice&");
///         let answer = if active { r#"{"active":true,"sub":"alice","aud":"https://llm.example"}"# } else {
///             r#"{"active":false}"#
///         };
///         ReadyOr::ready(Ok(answer.into()))
///     }
/// }
/// ```
pub trait IntrospectionClient: Debug + Send + Sync + 'static {
    /// The answer's body: a JSON document.
    ///
    /// What implements this keeps to the following, since nobody else can:
    /// - It posts the form, as `application/x-www-form-urlencoded`, and asks for `application/json`.
    /// - It answers within a few seconds, 5 where nothing speaks against it. After 15 it is given up.
    /// - It reads at most 512 KiB and then fails. What returns more is not believed.
    /// - It fails on every status but 200, and follows no redirect: the form has the token in it.
    fn introspect(&self, request: &IntrospectionRequest<'_>) -> ReadyOr<Result<Bytes, FetchError>>;
}

/// A question to an introspection endpoint. Read during the call.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct IntrospectionRequest<'a> {
    /// Where to ask: `https://`, or loopback if that was allowed.
    pub url: &'a str,
    /// Who asks, if it is to stand in the header `Authorization`.
    pub authorization: Option<&'a HeaderValue>,
    /// The form: the token, and perhaps who asks.
    pub form: &'a str,
}

/// Hides the token and who asks.
impl Debug for IntrospectionRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectionRequest").field("url", &self.url).finish_non_exhaustive()
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<T: IntrospectionClient + ?Sized> IntrospectionClient for $pointer<T> {
            fn introspect(
                &self,
                request: &IntrospectionRequest<'_>,
            ) -> ReadyOr<Result<Bytes, FetchError>> {
                (**self).introspect(request)
            }
        }
    )*};
}

forward!(Arc, Box);
