//! `--from`, `--to`, `--port`, `--protocol`: one flow on the command line or in a batch.

use std::net::IpAddr;

use clap::Args;
use serde::Deserialize;
use tracer_policy::model::{ObjectRef, Protocol};
use tracer_policy::{End, Flow, Icmp};

/// One flow on the command line.
#[derive(Clone, Debug, Args)]
pub(super) struct FlowArgs {
    /// Who sends: NAMESPACE/POD or an IP address.
    #[arg(long, value_name = "END", requires = "to")]
    from: Option<String>,
    /// Who receives: NAMESPACE/POD or an IP address, a Service's included.
    #[arg(long, value_name = "END", requires = "from")]
    to: Option<String>,
    /// Destination port; not for protocols without ports.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// TCP, UDP, SCTP, ICMP, ICMPv6 or a protocol number.
    #[arg(long, value_name = "PROTOCOL", default_value = "TCP")]
    protocol: String,
}

impl FlowArgs {
    /// The flow, where one is given.
    pub(super) fn resolve(&self, namespace: Option<&str>) -> Result<Option<Flow>, String> {
        let (Some(from), Some(to)) = (&self.from, &self.to) else {
            return Ok(None);
        };
        let text = FlowText {
            from: from.clone(),
            to: to.clone(),
            port: self.port.map(|port| NumberOrText::Number(port.into())),
            protocol: Some(NumberOrText::Text(self.protocol.clone())),
            icmp: None,
        };
        text.resolve(namespace).map(Some)
    }
}

/// One flow of a batch. What else a line holds is its writer's own (`id`, `expect`).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct FlowText {
    from: String,
    to: String,
    port: Option<NumberOrText>,
    protocol: Option<NumberOrText>,
    icmp: Option<Icmp>,
}

/// Programs write numbers either way.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number or a text")]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl FlowText {
    /// Reads the ends; a pod's name alone belongs to `namespace`.
    pub(super) fn resolve(&self, namespace: Option<&str>) -> Result<Flow, String> {
        let protocol = self.protocol.as_ref().map_or(Ok(Protocol::Tcp), protocol)?;
        let port = self.port.as_ref().map(port).transpose()?;
        if protocol.has_ports() && port.is_none() {
            return Err(format!("port: {protocol} needs a destination port"));
        }
        let is_icmp = matches!(protocol, Protocol::Icmp | Protocol::Icmpv6);
        Ok(Flow {
            from: end("from", &self.from, namespace)?,
            to: end("to", &self.to, namespace)?,
            port: port.filter(|_| protocol.has_ports()),
            protocol,
            icmp: self.icmp.filter(|_| is_icmp),
        })
    }
}

fn port(given: &NumberOrText) -> Result<u16, String> {
    let (port, text) = match given {
        NumberOrText::Number(number) => (u16::try_from(*number).ok(), number.to_string()),
        NumberOrText::Text(text) => (text.parse().ok(), format!("{text:?}")),
    };
    port.ok_or_else(|| format!("port {text}: expected a number from 0 to 65535"))
}

fn protocol(given: &NumberOrText) -> Result<Protocol, String> {
    let text = match given {
        NumberOrText::Number(number) => &number.to_string(),
        NumberOrText::Text(text) => text,
    };
    let by_name = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"]
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case(text))
        .and_then(Protocol::from_name);
    by_name
        .or_else(|| text.parse().ok().map(Protocol::from_number))
        .ok_or_else(|| {
            format!("protocol {text:?}: expected TCP, UDP, SCTP, ICMP, ICMPv6 or a number")
        })
}

fn end(field: &str, text: &str, namespace: Option<&str>) -> Result<End, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(End::Ip(ip.to_canonical()));
    }
    let (namespace, name) = match (text.split_once('/'), namespace) {
        (Some((namespace, name)), _) => (namespace, name),
        (None, Some(namespace)) => (namespace, text),
        (None, None) => ("", text),
    };
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(format!(
            "{field} {text:?}: expected NAMESPACE/POD or an IP address"
        ));
    }
    Ok(End::Pod(ObjectRef::new(namespace, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_in_an_ipv6_one_is_the_ipv4_address() {
        assert_eq!(
            end("from", "::ffff:10.0.0.1", None),
            Ok(End::Ip("10.0.0.1".parse().unwrap()))
        );
    }
}
