//! tonic serves a [`TlsListener`] as its stream of incoming connections, and hands its [`TlsPeer`] to the layers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use tonic::transport::server::Connected;

use super::{TlsListener, TlsStream};
use crate::connection::TlsPeer;

/// For `serve_with_incoming`. It never ends: what fails to be accepted is dealt with inside.
impl Stream for TlsListener {
    type Item = Result<TlsStream, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_accept(cx).map(|(stream, _)| Some(Ok(stream)))
    }
}

impl Connected for TlsStream {
    type ConnectInfo = TlsPeer;

    fn connect_info(&self) -> TlsPeer {
        self.peer().clone()
    }
}
