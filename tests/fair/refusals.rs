//! How a refusal reads, in each wire format.

use http::Response;
use palisade::Rejection;

/// The reason for programs.
pub(crate) fn code_of<B>(response: &Response<B>) -> &'static str {
    response.extensions().get::<Rejection>().expect("a refusal").code()
}
