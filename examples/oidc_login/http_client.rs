//! One request, one answer of bounded size.

use std::{io, time::Duration};

use http::{Request, Response};
use palisade::BoxError;
use reqwest::{Client, redirect::Policy};

/// A client that follows no redirect: a code, a token and a prompt go where they were sent, and no further.
pub(crate) fn new() -> Result<Client, BoxError> {
    let client = Client::builder().redirect(Policy::none()).referer(false);
    Ok(client.connect_timeout(CONNECT).read_timeout(SILENCE).build()?)
}

pub(crate) async fn send(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<Response<Vec<u8>>, io::Error> {
    // Without the URL: an error says no more than is known not to be secret.
    let failed = |error: reqwest::Error| io::Error::other(error.without_url());
    let mut answer = client.execute(request.try_into().map_err(failed)?).await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(io::Error::other("the answer is longer than 1 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(body);
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may pause. A model may think for a while.
const SILENCE: Duration = Duration::from_secs(60);

const MAX_BYTES: usize = 1 << 20;
