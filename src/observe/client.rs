//! The asking end of the admin socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{MAX_RESPONSE, Reply, Request, Response};

/// How long the daemon may take for one answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or we may not ask.
    #[error("cannot reach canal-fwd at {path}: {source}")]
    Unreachable {
        /// The socket.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon hung up, or took too long.
    #[error("canal-fwd did not answer: {0}")]
    Broken(#[source] io::Error),
    /// It said something else than agreed: another version, perhaps.
    #[error("canal-fwd's answer makes no sense (is it of another version?): {0}")]
    Nonsense(#[source] serde_json::Error),
    /// It refused.
    #[error("canal-fwd: {0}")]
    Refused(String),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let open = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Self { stream: BufReader::new(stream) })
        };
        open().map_err(|source| ClientError::Unreachable { path: path.display().to_string(), source })
    }

    /// Asks one question.
    ///
    /// # Errors
    /// Everything but [`ClientError::Unreachable`].
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(ClientError::Nonsense)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(ClientError::Broken)?;
        line.clear();
        (&mut self.stream).take(MAX_RESPONSE).read_until(b'\n', &mut line).map_err(ClientError::Broken)?;
        if line.is_empty() {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&line).map_err(ClientError::Nonsense)? {
            Response::Ok(reply) => Ok(reply),
            Response::Error(text) => Err(ClientError::Refused(text)),
        }
    }
}
