//! HTTP for probes and scrapers: one request a connection, few connections, a short life for each.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware::map_response;
use axum::response::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections open at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;

/// Longest life of a connection, from its acceptance to the last byte of the answer: no client needs more, and a
/// client that sends its header byte by byte or never reads is gone after it.
pub const LIFETIME: Duration = Duration::from_secs(10);

/// Serves `router` on `listener` for ever.
///
/// # Errors
/// None in practice: failures to accept are waited out.
pub async fn serve(listener: TcpListener, lifetime: Duration, router: Router) -> io::Result<()> {
    let listener = Short { listener, lifetime, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
    // Every answer ends its connection, so that no client runs into the end of a connection's life between two requests.
    let router = router.layer(map_response(async |mut response: Response| {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }));
    axum::serve(listener, router).await
}

/// Accepts connections that end by themselves.
struct Short {
    listener: TcpListener,
    lifetime: Duration,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for Short {
    type Io = ShortStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ShortStream, SocketAddr) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            unreachable!("the semaphore is never closed")
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let end = Box::pin(sleep(self.lifetime));
                    return (ShortStream { stream, end, _place: place }, peer);
                }
                // Out of descriptors, most likely: do not spin.
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with an end.
struct ShortStream {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl ShortStream {
    /// The stream, unless its time is up.
    fn alive(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl AsyncRead for ShortStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().alive(cx)?.poll_read(cx, buf)
    }
}

impl AsyncWrite for ShortStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().alive(cx)?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().alive(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Serves `router` somewhere on loopback.
    pub async fn start(router: Router, lifetime: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, lifetime, router));
        address
    }

    /// Status line's code, and body.
    pub async fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn an_answer_ends_the_connection() {
        let router = Router::new().route("/", get(async || "hello"));
        let address = start(router, LIFETIME).await;
        assert_eq!(fetch(address, "/").await, (200, "hello".to_owned()));
        assert_eq!(fetch(address, "/other").await.0, 404);
    }

    #[tokio::test]
    async fn clients_that_never_finish_their_request_make_room_for_others() {
        let router = Router::new().route("/", get(async || "hello"));
        let address = start(router, Duration::from_millis(100)).await;
        let mut slow = Vec::new();
        for _ in 0..2 * MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HT").await.unwrap();
            slow.push(stream);
        }
        assert_eq!(fetch(address, "/").await, (200, "hello".to_owned()));
        let mut rest = Vec::new();
        // Hung up on, by whatever kind of end.
        let _ = slow[0].read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("hello"));
    }
}
