//! A lookup as a Go program makes it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

use super::connect::errno_text;
use crate::netns::Netns;

/// What came of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsOutcome {
    /// The server answered, with that many records.
    Answered {
        /// Records in the answer; none where the name does not exist.
        records: u16,
    },
    /// It did not; the text is Go's.
    Failed(String),
}

/// Asks `server` over UDP for the A records of `name`, once.
pub fn dns_lookup(
    from: &Netns,
    server: SocketAddr,
    name: &str,
    timeout: Duration,
) -> Result<DnsOutcome> {
    from.enter(|| {
        let any: SocketAddr = if server.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).context("cannot make a UDP socket")?;
        socket.set_read_timeout(Some(timeout))?;
        socket
            .connect(server)
            .with_context(|| format!("no way to {server}"))?;
        let local = socket.local_addr()?;

        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            query.push(u8::try_from(label.len()).context("a DNS label is at most 63 bytes")?);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        let mut buffer = [0; 512];
        let answer = socket
            .send(&query)
            .map_err(|error| ("write", error))
            .and_then(|_| socket.recv(&mut buffer).map_err(|error| ("read", error)));
        Ok(match answer {
            Ok(length) if length >= 12 => DnsOutcome::Answered {
                records: u16::from_be_bytes([buffer[6], buffer[7]]),
            },
            Ok(_) => DnsOutcome::Failed(format!(
                "lookup {name} on {server}: cannot unmarshal DNS message"
            )),
            Err((verb, error)) => {
                let what = match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => "i/o timeout".to_owned(),
                    _ => format!("{verb}: {}", errno_text(&error)),
                };
                DnsOutcome::Failed(format!(
                    "lookup {name} on {server}: {verb} udp {local}->{server}: {what}"
                ))
            }
        })
    })?
}
