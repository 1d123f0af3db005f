//! axum serves a [`TlsListener`], and hands its [`TlsPeer`] to the layers.

use std::io;

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};

use super::{TlsListener, TlsStream};
use crate::connection::TlsPeer;

impl Listener for TlsListener {
    type Io = TlsStream;
    type Addr = TlsPeer;

    async fn accept(&mut self) -> (TlsStream, TlsPeer) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<TlsPeer> {
        Ok(TlsPeer::verified(Self::local_addr(self)?, None))
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for TlsPeer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}
