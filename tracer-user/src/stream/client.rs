//! The reader's end of the stream: what `tracer watch` uses.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CutOff, Greeting, Request, Rest, VERSION};
use crate::record::Drop;

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or we may not ask.
    #[error("no agent answers at {}", path.display())]
    Connect {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It broke off.
    #[error("the agent's stream broke off")]
    Io(#[from] io::Error),
    /// The agent refuses.
    #[error("the agent refuses: {0}")]
    Refused(String),
    /// It does not speak our language.
    #[error("the agent's stream cannot be read; is it of another version?")]
    Language(#[from] serde_json::Error),
    /// We were too slow.
    #[error("the agent cut the stream off: {} drops were missed because they were not read in time", .0.missed)]
    CutOff(CutOff),
}

impl ClientError {
    /// Whether no agent runs there at all, as opposed to one that we may not ask.
    pub fn nobody_there(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ))
    }
}

/// A stream of drops from an agent.
#[derive(Debug)]
pub struct Client {
    node: String,
    state: Option<String>,
    stream: BufReader<UnixStream>,
    line: String,
}

impl Client {
    /// Asks the agent that listens at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn connect(path: &Path, request: &Request) -> Result<Self, ClientError> {
        let mut stream = UnixStream::connect(path).map_err(|source| ClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        serde_json::to_writer(&mut stream, request)?;
        stream.write_all(b"\n")?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let greeting: Greeting = serde_json::from_str(&line)?;
        if let Some(reason) = greeting.refused {
            return Err(ClientError::Refused(reason));
        }
        if greeting.version != VERSION {
            return Err(ClientError::Refused(format!(
                "it speaks version {} of the stream, not {VERSION}",
                greeting.version
            )));
        }
        Ok(Self {
            node: greeting.node,
            state: greeting.state,
            stream,
            line,
        })
    }

    /// The agent's node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What is to be said of the agent's cluster state.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Something to shut the stream down with, from another thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn stopper(&self) -> io::Result<UnixStream> {
        self.stream.get_ref().try_clone()
    }
}

/// How long an agent has to answer who drains it.
const DRAINED_WITHIN: Duration = Duration::from_secs(8);

/// Waits until the agent at `path` has nothing left to tell, or gives up.
///
/// # Errors
/// See [`ClientError`].
pub fn drain(path: &Path) -> Result<Rest, ClientError> {
    let mut client = Client::connect(
        path,
        &Request {
            version: VERSION,
            last: None,
            since: None,
            follow: false,
            drain: true,
        },
    )?;
    let stream = client.stream.get_ref();
    stream.set_read_timeout(Some(DRAINED_WITHIN))?;
    client.line.clear();
    client.stream.read_line(&mut client.line)?;
    Ok(serde_json::from_str(&client.line)?)
}

impl Iterator for Client {
    type Item = Result<Drop, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line.clear();
        match self.stream.read_line(&mut self.line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(error.into())),
        }
        match serde_json::from_str(&self.line) {
            Ok(drop) => Some(Ok(drop)),
            Err(error) => Some(Err(match serde_json::from_str(&self.line) {
                Ok(cut_off) => ClientError::CutOff(cut_off),
                Err(_) => error.into(),
            })),
        }
    }
}
