//! Ports, in either version's words.

use super::super::Found;
use super::spec::{DestinationSpec, PortSpec, ProtocolSpec, RangeSpec};
use super::unsupported;
use crate::model::Protocol;
use crate::policy::{Port, PortNumber, Problem};

/// Protocols that have ports.
const WITH_PORTS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

pub(super) fn port(spec: &PortSpec, path: &str) -> Found<Vec<Port>> {
    match (&spec.port_number, &spec.port_range, &spec.named_port) {
        (Some(number), None, None) => {
            let path = format!("{path}.portNumber");
            let port = number_of(number.port, &path, "port")?;
            Ok(vec![Port {
                protocol: protocol_of(number.protocol.as_deref(), &path)?,
                number: PortNumber::Range(port, port),
            }])
        }
        (None, Some(range), None) => {
            let path = format!("{path}.portRange");
            Ok(vec![Port {
                protocol: protocol_of(range.protocol.as_deref(), &path)?,
                number: range_of(range, &path)?,
            }])
        }
        (None, None, Some(name)) => Ok(named(name)),
        _ => Err(unsupported(
            path,
            "give exactly one of portNumber, portRange and namedPort",
        )),
    }
}

pub(super) fn protocol(spec: &ProtocolSpec, path: &str) -> Found<Vec<Port>> {
    let given: Vec<_> = [
        (Protocol::Tcp, "tcp", &spec.tcp),
        (Protocol::Udp, "udp", &spec.udp),
        (Protocol::Sctp, "sctp", &spec.sctp),
    ]
    .into_iter()
    .filter_map(|(protocol, field, spec)| Some((protocol, field, spec.as_ref()?)))
    .collect();
    match (given.as_slice(), &spec.destination_named_port) {
        ([(protocol, field, transport)], None) => {
            let path = format!("{path}.{field}.destinationPort");
            let number = match &transport.destination_port {
                None => PortNumber::Any,
                Some(DestinationSpec {
                    number: Some(number),
                    range: None,
                }) => {
                    let number = number_of(*number, &path, "number")?;
                    PortNumber::Range(number, number)
                }
                Some(DestinationSpec {
                    number: None,
                    range: Some(range),
                }) => range_of(range, &format!("{path}.range"))?,
                Some(_) => return Err(unsupported(&path, "give exactly one of number and range")),
            };
            Ok(vec![Port {
                protocol: *protocol,
                number,
            }])
        }
        ([], Some(name)) => Ok(named(name)),
        _ => Err(unsupported(
            path,
            "give exactly one of tcp, udp, sctp and destinationNamedPort",
        )),
    }
}

/// A name stands for whatever protocol the container's port has.
fn named(name: &str) -> Vec<Port> {
    WITH_PORTS
        .map(|protocol| Port {
            protocol,
            number: PortNumber::Named(name.into()),
        })
        .into()
}

fn protocol_of(name: Option<&str>, path: &str) -> Found<Protocol> {
    match name {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err((
            format!("{path}.protocol"),
            Problem::Protocol(other.to_owned()),
        )),
    }
}

fn number_of(value: i32, path: &str, leaf: &str) -> Found<u16> {
    match u16::try_from(value) {
        Ok(number) if number != 0 => Ok(number),
        _ => Err((format!("{path}.{leaf}"), Problem::PortNumber(value))),
    }
}

fn range_of(range: &RangeSpec, path: &str) -> Found<PortNumber> {
    let (start, end) = (
        number_of(range.start, path, "start")?,
        number_of(range.end, path, "end")?,
    );
    if end < start {
        let problem = Problem::EndPortBelow { end, port: start };
        return Err((format!("{path}.end"), problem));
    }
    Ok(PortNumber::Range(start, end))
}
