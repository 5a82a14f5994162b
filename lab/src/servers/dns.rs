//! A DNS server that knows one name (RFC 1035, UDP and TCP).

use std::io::{PipeReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use super::readable;
use crate::plan::KUBERNETES_SERVICE;

/// The name that resolves; every other one does not exist.
const NAME: &[u8] = b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00";

pub(super) fn serve_udp(socket: &UdpSocket, stopped: &PipeReader) {
    let mut buffer = [0; 512];
    while readable(socket, stopped) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer)
            && let Some(answer) = answer(&buffer[..length])
        {
            // A client that has gone, or a policy in between: either is its own affair.
            let _ = socket.send_to(&answer, peer);
        }
    }
}

pub(super) fn serve_tcp(listener: &TcpListener, stopped: &PipeReader) {
    while readable(listener, stopped) {
        let Ok((mut stream, _)) = listener.accept() else {
            continue;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            continue;
        }
        if let Some(answer) = answer(&query)
            && let Ok(length) = u16::try_from(answer.len())
        {
            let _ = stream.write_all(&length.to_be_bytes());
            let _ = stream.write_all(&answer);
        }
    }
}

/// The answer to a query of one question; `None` for what is no query.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..12)?;
    let is_query = header[2] & 0x80 == 0;
    if !is_query || header[4..6] != [0, 1] {
        return None;
    }
    let mut end = 12;
    while let Some(&length) = query.get(end)
        && length != 0
    {
        end += 1 + usize::from(length);
    }
    let name = query.get(12..=end)?;
    let kind = query.get(end + 1..end + 3)?;
    let question = query.get(12..end + 5)?;

    let record: Option<Vec<u8>> = match (name.eq_ignore_ascii_case(NAME), kind) {
        (true, [0, 1]) => Some(KUBERNETES_SERVICE.v4.octets().to_vec()),
        (true, [0, 28]) => Some(KUBERNETES_SERVICE.v6.octets().to_vec()),
        _ => None,
    };
    let unknown = !name.eq_ignore_ascii_case(NAME);
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&header[..2]);
    // Response, authoritative, recursion as asked; NXDOMAIN is 3.
    out.extend_from_slice(&[0x84 | header[2] & 1, if unknown { 3 } else { 0 }]);
    out.extend_from_slice(&[0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0]);
    out.extend_from_slice(question);
    if let Some(address) = record {
        out.extend_from_slice(&[0xc0, 12, kind[0], kind[1], 0, 1, 0, 0, 0, 5, 0]);
        out.push(u8::try_from(address.len()).ok()?);
        out.extend_from_slice(&address);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &[u8], kind: u8) -> Vec<u8> {
        let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(name);
        query.extend_from_slice(&[0, kind, 0, 1]);
        query
    }

    #[test]
    fn knows_the_api_server() {
        let answer = answer(&query(NAME, 1)).unwrap();
        assert_eq!(answer[..4], [0xab, 0xcd, 0x85, 0]);
        assert_eq!(answer[answer.len() - 4..], [10, 43, 0, 1]);
    }

    #[test]
    fn denies_other_names_and_ignores_garbage() {
        let denied = answer(&query(b"\x03foo\x00", 1)).unwrap();
        assert_eq!(denied[3] & 0xf, 3);
        assert_eq!(answer(&[1, 2, 3]), None);
        assert_eq!(answer(&query(b"\x3ffoo", 1)), None);
    }
}
