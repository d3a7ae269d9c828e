//! Which protocol a client speaks, from its first bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.x, or HTTP/2 with prior knowledge ("PRI").
    Http,
    /// A TLS handshake: there is no key to answer it with.
    Tls,
    /// Anything else: lines.
    Lines,
}

/// RFC 9110 section 9 and RFC 5789; `PRI` is HTTP/2's preface (RFC 9113, 3.4).
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PRI ",
];

/// TLS record type of a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// `None`: more bytes are needed.
pub(super) fn protocol(start: &[u8]) -> Option<Protocol> {
    if start.first() == Some(&TLS_HANDSHAKE) {
        return Some(Protocol::Tls);
    }
    if METHODS.iter().any(|method| start.starts_with(method)) {
        return Some(Protocol::Http);
    }
    let undecided = METHODS.iter().any(|method| method.starts_with(start));
    (!undecided).then_some(Protocol::Lines)
}

/// Reads until the protocol is known. `None` if the client said nothing.
pub(super) async fn sniff(mut stream: TcpStream) -> io::Result<Option<(Protocol, Replay)>> {
    let mut start = BytesMut::new();
    loop {
        if stream.read_buf(&mut start).await? == 0 {
            // The start of a method and no more is a (short) line.
            return Ok((!start.is_empty()).then(|| {
                (
                    Protocol::Lines,
                    Replay {
                        start: start.freeze(),
                        stream,
                    },
                )
            }));
        }
        if let Some(protocol) = protocol(&start) {
            return Ok(Some((
                protocol,
                Replay {
                    start: start.freeze(),
                    stream,
                },
            )));
        }
    }
}

/// A stream whose first bytes were read already, and are read again.
#[derive(Debug)]
pub(super) struct Replay {
    start: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.start.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.start.len().min(buf.remaining());
        buf.put_slice(&self.start[..length]);
        self.start.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        let cases: [(&[u8], Option<Protocol>); 10] = [
            (b"", None),
            (b"G", None),
            (b"GET", None),
            (b"GET / HTTP/1.1\r\n", Some(Protocol::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(Protocol::Http)),
            (b"PING\r\n", Some(Protocol::Lines)),
            (b"hello\n", Some(Protocol::Lines)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Protocol::Lines)),
            (b"\n", Some(Protocol::Lines)),
            (&[22, 3, 1, 2, 0], Some(Protocol::Tls)),
        ];
        for (start, expected) in cases {
            assert_eq!(protocol(start), expected, "{start:?}");
        }
    }
}
