//! An HTTPS GET as the kubelet's prober and client-go make it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::connect::{close, errno_text, go_connect_error};
use crate::netns::Netns;

/// How long a client waits, and so which words it ends with.
#[derive(Clone, Copy, Debug)]
pub enum Timeouts {
    /// One limit for everything (`http.Client.Timeout`), as the kubelet's probes have it.
    Whole(Duration),
    /// A limit for each stage (`http.Transport`), as client-go has it.
    Stages {
        /// `DialContext`.
        dial: Duration,
        /// `TLSHandshakeTimeout`.
        handshake: Duration,
        /// The caller's context, for the answer.
        response: Duration,
    },
}

/// A GET.
#[derive(Clone, Debug)]
pub struct Request {
    /// Server.
    pub to: SocketAddr,
    /// Path, with its `/`.
    pub path: String,
    /// Patience.
    pub timeouts: Timeouts,
}

impl Request {
    /// A probe as the kubelet makes it (`timeoutSeconds` is 1 by default).
    pub fn probe(to: SocketAddr, path: &str, timeout: Duration) -> Self {
        Self {
            to,
            path: path.to_owned(),
            timeouts: Timeouts::Whole(timeout),
        }
    }

    /// A call as client-go makes it, with the same patience for each stage (30 s, 10 s and none by
    /// default).
    pub fn api_call(to: SocketAddr, path: &str, stage: Duration) -> Self {
        Self {
            to,
            path: path.to_owned(),
            timeouts: Timeouts::Stages {
                dial: stage,
                handshake: stage,
                response: stage,
            },
        }
    }
}

/// How far a failed request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Connecting.
    Dial,
    /// TLS handshake.
    Handshake,
    /// Request or answer.
    Response,
}

/// What came of a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpsOutcome {
    /// An answer.
    Answered {
        /// HTTP status.
        status: u16,
        /// Body.
        body: String,
    },
    /// None.
    Failed {
        /// How far it came.
        stage: Stage,
        /// The error as Go prints it.
        text: String,
    },
}

impl HttpsOutcome {
    /// Whether the answer was a 2xx.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Answered { status, .. } if (200..300).contains(status))
    }
}

/// Makes requests to the lab's servers, whose certificate authority it knows.
#[derive(Clone, Debug)]
pub struct HttpsClient {
    config: Arc<ClientConfig>,
}

/// A connection that stands, before its TLS handshake: where a policy may strike in between.
#[derive(Debug)]
pub struct Dialed {
    stream: TcpStream,
    config: Arc<ClientConfig>,
    request: Request,
    started: Instant,
}

impl HttpsClient {
    pub(crate) fn new(config: Arc<ClientConfig>) -> Self {
        Self { config }
    }

    /// A whole request from inside `from`.
    pub fn get(&self, from: &Netns, request: &Request) -> Result<HttpsOutcome> {
        Ok(match self.dial(from, request)? {
            Ok(dialed) => dialed.get(),
            Err(failed) => failed,
        })
    }

    /// Connects only; the inner error is a [`HttpsOutcome::Failed`].
    pub fn dial(
        &self,
        from: &Netns,
        request: &Request,
    ) -> Result<std::result::Result<Dialed, HttpsOutcome>> {
        let started = Instant::now();
        let timeout = match request.timeouts {
            Timeouts::Whole(timeout) => timeout,
            Timeouts::Stages { dial, .. } => dial,
        };
        let stream = from.enter(|| TcpStream::connect_timeout(&request.to, timeout))?;
        Ok(match stream {
            Ok(stream) => Ok(Dialed {
                stream,
                config: Arc::clone(&self.config),
                request: request.clone(),
                started,
            }),
            Err(error) => Err(request.failed(Stage::Dial, &error, None)),
        })
    }
}

impl Dialed {
    /// Handshake, request, answer. The clock of [`Timeouts::Whole`] has been running since the dial.
    pub fn get(self) -> HttpsOutcome {
        let local = self.stream.local_addr().ok();
        let request = self.request.clone();
        self.try_get()
            .unwrap_or_else(|(stage, error)| request.failed(stage, &error, local))
    }

    fn try_get(self) -> std::result::Result<HttpsOutcome, (Stage, io::Error)> {
        let Self {
            mut stream,
            config,
            request,
            started,
        } = self;
        let (handshake, response) = match request.timeouts {
            Timeouts::Whole(timeout) => (started + timeout, None),
            Timeouts::Stages {
                handshake,
                response,
                ..
            } => (Instant::now() + handshake, Some(response)),
        };
        let at = |stage: Stage| move |error: io::Error| (stage, error);

        let name = ServerName::IpAddress(request.to.ip().into());
        let mut tls = ClientConnection::new(config, name)
            .map_err(|error| (Stage::Handshake, io::Error::other(error)))?;
        while tls.is_handshaking() {
            until(&stream, handshake).map_err(at(Stage::Handshake))?;
            tls.complete_io(&mut stream).map_err(at(Stage::Handshake))?;
        }
        let deadline = response.map_or(handshake, |response| Instant::now() + response);
        until(&stream, deadline).map_err(at(Stage::Response))?;
        let mut tls = StreamOwned::new(tls, stream);
        write!(
            tls,
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n",
            request.path, request.to
        )
        .and_then(|()| tls.flush())
        .map_err(at(Stage::Response))?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer)
            .map_err(at(Stage::Response))?;
        close(
            &tls.sock,
            deadline.saturating_duration_since(Instant::now()),
        );
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        match (status, body) {
            (Some(status), Some(body)) => Ok(HttpsOutcome::Answered { status, body }),
            _ => Err((Stage::Response, ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Lets reads and writes wait until `deadline`.
fn until(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))
}

impl Request {
    fn failed(&self, stage: Stage, error: &io::Error, local: Option<SocketAddr>) -> HttpsOutcome {
        let to = self.to;
        let timed_out = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
        let what = match (timed_out, self.timeouts, stage) {
            (true, Timeouts::Whole(_), _) => {
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    .to_owned()
            }
            (_, _, Stage::Dial) => format!("dial tcp {to}: {}", go_connect_error(error)),
            (true, Timeouts::Stages { .. }, Stage::Handshake) => {
                "net/http: TLS handshake timeout".to_owned()
            }
            (true, Timeouts::Stages { .. }, Stage::Response) => {
                "context deadline exceeded".to_owned()
            }
            (false, ..) if error.kind() == ErrorKind::UnexpectedEof => "EOF".to_owned(),
            (false, ..) => match (error.raw_os_error(), local) {
                (Some(_), Some(local)) => {
                    format!("read tcp {local}->{to}: read: {}", errno_text(error))
                }
                _ => error.to_string(),
            },
        };
        HttpsOutcome::Failed {
            stage,
            text: format!("Get \"https://{to}{}\": {what}", self.path),
        }
    }
}
