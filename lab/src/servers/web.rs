//! HTTP/1.1 over TLS, one request a connection: the API server's and Vault's stand-ins.

use std::io::{self, BufRead, BufReader, ErrorKind, PipeReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::{AlertDescription, ServerConfig, ServerConnection, StreamOwned};

use super::{Log, readable};

/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a path answers: status line and JSON or text.
pub(super) type Pages = fn(&str) -> (&'static str, &'static str);

/// The API server's pages.
pub(super) fn api_server(path: &str) -> (&'static str, &'static str) {
    match path {
        "/healthz" | "/livez" | "/readyz" => ("200 OK", "ok"),
        "/version" => (
            "200 OK",
            r#"{"major":"1","minor":"34","gitVersion":"v1.34.1+k3s1","platform":"linux/amd64"}"#,
        ),
        _ => (
            "404 Not Found",
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}"#,
        ),
    }
}

/// Vault's pages.
pub(super) fn vault(path: &str) -> (&'static str, &'static str) {
    match path {
        "/v1/sys/health" => (
            "200 OK",
            r#"{"initialized":true,"sealed":false,"standby":false}"#,
        ),
        _ => ("404 Not Found", r#"{"errors":[]}"#),
    }
}

/// One listener.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) listener: TcpListener,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) pages: Pages,
    pub(super) log: Log,
}

impl Server {
    /// Serves until the lab stops, then cuts what is still open.
    pub(super) fn run(self, stopped: &PipeReader) {
        let open = Mutex::new(Vec::<TcpStream>::new());
        thread::scope(|scope| {
            while readable(&self.listener, stopped) {
                let Ok((stream, peer)) = self.listener.accept() else {
                    continue;
                };
                if let Ok(copy) = stream.try_clone() {
                    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                    // Those whose handler has finished have no peer any more.
                    open.retain(|stream| stream.peer_addr().is_ok());
                    open.push(copy);
                }
                let server = &self;
                scope.spawn(move || server.serve(stream, peer));
            }
            for stream in open.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    fn serve(&self, mut stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if let Err(error) = self.handshake_and_answer(&mut stream, peer) {
            self.log.line(&self.name, error);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    /// Answers one request; an error is the line Go's server would log.
    fn handshake_and_answer(&self, stream: &mut TcpStream, peer: SocketAddr) -> Result<(), String> {
        let say = |error: &io::Error| {
            let local = stream.local_addr().ok();
            format!(
                "http: TLS handshake error from {peer}: {}",
                go_error(error, local, peer)
            )
        };
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .map_err(|error| say(&error))?;
        let mut connection = ServerConnection::new(Arc::clone(&self.tls))
            .map_err(|error| say(&io::Error::other(error)))?;
        let mut io = match stream.try_clone() {
            Ok(io) => io,
            Err(error) => return Err(say(&error)),
        };
        while connection.is_handshaking() {
            connection
                .complete_io(&mut io)
                .map_err(|error| say(&error))?;
        }
        let mut tls = BufReader::new(StreamOwned::new(connection, io));
        // What goes wrong after the handshake Go's server does not log.
        let Ok(Some(path)) = request_path(&mut tls) else {
            return Ok(());
        };
        let (status, body) = (self.pages)(&path);
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let tls = tls.get_mut();
        if tls.write_all(answer.as_bytes()).is_ok() {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        Ok(())
    }
}

/// Reads a request's head and returns its path; `None` where the client left.
fn request_path(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut first = String::new();
    stream.read_line(&mut first)?;
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(first.split(' ').nth(1).map(str::to_owned))
}

/// A socket or TLS error as Go words it.
fn go_error(error: &io::Error, local: Option<SocketAddr>, peer: SocketAddr) -> String {
    if let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return match tls {
            rustls::Error::AlertReceived(AlertDescription::UnknownCA) => {
                "remote error: tls: unknown certificate authority".to_owned()
            }
            rustls::Error::AlertReceived(AlertDescription::BadCertificate) => {
                "remote error: tls: bad certificate".to_owned()
            }
            rustls::Error::InvalidMessage(_) => {
                "tls: first record does not look like a TLS handshake".to_owned()
            }
            other => format!("tls: {other}"),
        };
    }
    match error.kind() {
        ErrorKind::UnexpectedEof => "EOF".to_owned(),
        kind => {
            let what = match kind {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "i/o timeout".to_owned(),
                ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
                _ => error.to_string(),
            };
            match local {
                Some(local) => {
                    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
                    format!("read tcp {local}->{peer}: {what}")
                }
                None => what,
            }
        }
    }
}
