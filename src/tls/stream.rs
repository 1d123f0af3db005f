//! A connection whose handshake is done.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    connection::TlsPeer,
    runtime::{AsyncRead, AsyncWrite, ReadBuf, TcpStream},
};

/// An accepted TLS connection, to read from and write to.
pub struct TlsStream {
    tls: tokio_rustls::server::TlsStream<TcpStream>,
    peer: TlsPeer,
}

impl TlsStream {
    pub(super) fn new(tls: tokio_rustls::server::TlsStream<TcpStream>, peer: TlsPeer) -> Self {
        Self { tls, peer }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &TlsPeer {
        &self.peer
    }

    /// The application protocol that both sides agreed on (ALPN): `h2`, `http/1.1`, or none.
    #[must_use]
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls.get_ref().1.alpn_protocol()
    }

    /// The host name that the client asked for (SNI). Its word, not verified.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.tls.get_ref().1.server_name()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsStream(..)")
    }
}
