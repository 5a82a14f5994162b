//! A TCP connection attempt.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// What came of a connection attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpOutcome {
    /// Three-way handshake done.
    Connected,
    /// `connection refused`: a RST, or an ICMP port unreachable.
    Refused,
    /// Nothing came back in time.
    TimedOut,
    /// Another ICMP error or a local one; the text is Go's (`no route to host`, ...).
    Unreachable(String),
}

/// Tries to connect, closes at once and waits for the server to close as well, so that nothing of the
/// connection is under way afterwards. Linux repeats a SYN after one second (RFC 6298), so with a
/// `timeout` below that an unanswered attempt is one packet; on a machine that stood still meanwhile it
/// may be more, which [`repeated_syns`] tells.
///
/// Over IPv6 a SYN that is rejected by ICMP ends as [`TcpOutcome::TimedOut`] within that first second:
/// on virtual cables the ICMP error is back before `connect` has let go of the socket, and only the
/// next one counts (`tcp_v6_err`: a soft error while the socket is owned by user).
pub fn tcp_connect(from: &Netns, to: SocketAddr, timeout: Duration) -> Result<TcpOutcome> {
    from.enter(|| match TcpStream::connect_timeout(&to, timeout) {
        Ok(stream) => {
            close(&stream, timeout);
            TcpOutcome::Connected
        }
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => TcpOutcome::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => TcpOutcome::TimedOut,
            _ => TcpOutcome::Unreachable(go_connect_error(&error)),
        },
    })
}

/// How many SYNs, and answers to SYNs, a namespace has sent again so far, by the kernel's own count
/// (`TCPSynRetrans`).
pub fn repeated_syns(of: &Netns) -> Result<u64> {
    // Two lines: names and values, each after `TcpExt:`.
    let text = of.enter(|| fs::read_to_string("/proc/thread-self/net/netstat"))??;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next(), lines.next());
    names
        .zip(values)
        .and_then(|(names, values)| {
            let at = names.split(' ').position(|name| name == "TCPSynRetrans")?;
            values.split(' ').nth(at)?.parse().ok()
        })
        .context("the kernel does not count SYNs that it sends again")
}

/// Closes the sending side and reads to the end, at most `patience` between two pieces.
pub(super) fn close(mut stream: &TcpStream, patience: Duration) {
    let patience = patience.max(Duration::from_millis(1));
    let closing = stream
        .shutdown(Shutdown::Write)
        .and_then(|()| stream.set_read_timeout(Some(patience)));
    if closing.is_ok() {
        // However it ends, the connection is over for its owner.
        let _ = io::copy(&mut stream, &mut io::sink());
    }
}

/// A failed connect as Go words it, without the `dial tcp ADDR: ` in front.
pub(super) fn go_connect_error(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "i/o timeout".to_owned(),
        _ => format!("connect: {}", errno_text(error)),
    }
}

/// The C library's text for an error in lower case and without Rust's `(os error N)`, as Go prints it.
pub(super) fn errno_text(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
