//! The admin socket: who may open the file may ask.
//!
//! A client cannot hurt: requests, clients and waiting are bounded, and a client that does not read is hung up on.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::protocol::{MAX_REQUEST, Request, Response};

/// Clients served at a time; more wait in the kernel's queue.
const MAX_CLIENTS: usize = 16;

/// Patience of one step with one client.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the next request to arrive.
    pub request: Duration,
    /// For an answer to be made and taken.
    pub response: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request: Duration::from_secs(30), response: Duration::from_secs(10) }
    }
}

/// Opens the socket, readable and writable by the owner only. A file that a killed daemon left is replaced; the
/// caller holds the instance lock, so nobody listens there.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound under another name and moved into place when only the owner may open it.
    let unready = path.with_extension("new");
    let _ = std::fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready)?;
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unready, path)?;
    Ok(listener)
}

/// Answers requests for ever.
pub async fn serve<F, A>(listener: UnixListener, patience: Patience, answer: F)
where
    F: Fn(Request) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            unreachable!("the semaphore is never closed")
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer.clone();
                tokio::spawn(async move {
                    // A client that went away is no news.
                    let _ = converse(stream, patience, answer).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin socket: cannot accept a client");
                // Out of descriptors, most likely: do not spin.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse<F, A>(stream: UnixStream, patience: Patience, answer: F) -> io::Result<()>
where
    F: Fn(Request) -> A,
    A: Future<Output = Response>,
{
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::with_capacity(MAX_REQUEST, read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut lines).take(MAX_REQUEST as u64);
        let size = timeout(patience.request, bounded.read_until(b'\n', &mut line)).await??;
        if size == 0 {
            return Ok(());
        }
        let complete = line.ends_with(b"\n");
        let response = async {
            match serde_json::from_slice(&line) {
                _ if !complete => {
                    Response::Error(format!("a request is one line of at most {MAX_REQUEST} bytes"))
                }
                Ok(request) => answer(request).await,
                Err(error) => Response::Error(format!("not a request: {error}")),
            }
        };
        let finished = timeout(patience.response, async {
            let mut text = serde_json::to_vec(&response.await)?;
            text.push(b'\n');
            write.write_all(&text).await
        });
        finished.await??;
        if !complete {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::protocol::{GenerationView, Reply};

    fn start(dir: &Path, patience: Patience) -> std::path::PathBuf {
        let path = dir.join("s.sock");
        let listener = bind(&path).unwrap();
        tokio::spawn(serve(listener, patience, |request| async move {
            match request {
                Request::Generation => Response::Ok(Reply::Generation(GenerationView::default())),
                // More than a socket's buffers hold.
                _ => Response::Error("x".repeat(4 << 20)),
            }
        }));
        path
    }

    const SHORT: Patience =
        Patience { request: Duration::from_millis(50), response: Duration::from_millis(50) };

    #[tokio::test]
    async fn requests_are_answered_in_turn_on_one_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = start(dir.path(), Patience::default());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
        for _ in 0..2 {
            stream.write_all(b"{\"show\":\"generation\"}\n").await.unwrap();
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let response: Response = serde_json::from_str(&line).unwrap();
            assert_eq!(response, Response::Ok(Reply::Generation(GenerationView::default())));
        }
        stream.write_all(b"nonsense\n").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("{\"error\":\"not a request: "), "{line}");
    }

    #[tokio::test]
    async fn a_request_without_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = start(dir.path(), Patience::default());
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(&[b'x'; MAX_REQUEST]).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "{\"error\":\"a request is one line of at most 4096 bytes\"}\n");
    }

    #[tokio::test]
    async fn silent_clients_and_those_that_do_not_read_make_room_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = start(dir.path(), SHORT);
        let mut idle = Vec::new();
        for _ in 0..MAX_CLIENTS / 2 {
            idle.push(UnixStream::connect(&path).await.unwrap());
            let mut greedy = UnixStream::connect(&path).await.unwrap();
            greedy.write_all(b"{\"show\":\"ports\"}\n").await.unwrap();
            idle.push(greedy);
        }
        let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
        stream.write_all(b"{\"show\":\"generation\"}\n").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.contains("generation"), "{line}");
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_anything_else_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(bind(&path).unwrap());
        assert!(path.exists());
        drop(bind(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
