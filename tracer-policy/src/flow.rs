//! Flows: what is judged.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::model::{ObjectRef, Protocol};

/// A connection one end opens to the other. Replies are not flows of their own: they pass where the
/// flow they answer passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who opens it.
    pub from: End,
    /// Whom it is opened to.
    pub to: End,
    /// The destination port; `None` for protocols without ports, or where it is not known.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Protocol,
    /// Of ICMP and `ICMPv6`: what kind of message, where it is known. Calico's rules may ask for it.
    pub icmp: Option<Icmp>,
}

/// The kind of an ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Icmp {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

impl Flow {
    /// A TCP flow.
    pub const fn tcp(from: End, to: End, port: u16) -> Self {
        Self {
            from,
            to,
            port: Some(port),
            protocol: Protocol::Tcp,
            icmp: None,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.from, self.to)?;
        match self.port {
            Some(port) => write!(f, " port {port}/{}", self.protocol),
            None => write!(f, " {}", self.protocol),
        }
    }
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A pod by name.
    Pod(ObjectRef),
    /// An address, whoever owns it.
    Ip(IpAddr),
}

impl End {
    /// A pod by namespace and name.
    pub fn pod(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Pod(ObjectRef::new(namespace, name))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(id) => id.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// An end that is neither `namespace/pod` nor an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no end of a flow: write `namespace/pod` or an IP address")]
pub struct ParseEndError(String);

impl FromStr for End {
    type Err = ParseEndError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self::pod(namespace, name))
            }
            _ => Err(ParseEndError(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for End {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// As a line of `--batch`: `{"from":..,"to":..,"port":..,"protocol":..,"icmp":{"type":..,"code":..}}`, the protocol
/// TCP where absent.
impl<'de> Deserialize<'de> for Flow {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Line {
            from: End,
            to: End,
            port: Option<u16>,
            protocol: Option<String>,
            icmp: Option<Icmp>,
        }
        let line = Line::deserialize(d)?;
        let protocol = match line.protocol.as_deref() {
            None => Protocol::Tcp,
            Some(name) => Protocol::from_name(name).ok_or_else(|| {
                serde::de::Error::custom(format_args!(
                    "protocol: `{name}` is not known: write TCP, UDP, SCTP, ICMP or ICMPv6"
                ))
            })?,
        };
        Ok(Self {
            from: line.from,
            to: line.to,
            port: line.port,
            protocol,
            icmp: line.icmp,
        })
    }
}

impl Serialize for Flow {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            from: &'a End,
            to: &'a End,
            #[serde(skip_serializing_if = "Option::is_none")]
            port: Option<u16>,
            protocol: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            icmp: Option<Icmp>,
        }
        Line {
            from: &self.from,
            to: &self.to,
            port: self.port,
            protocol: self.protocol.to_string(),
            icmp: self.icmp,
        }
        .serialize(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_line() {
        let flow: Flow =
            serde_json::from_str(r#"{"from":"vault/vault-0","to":"192.168.1.100","port":6443}"#)
                .unwrap();
        assert_eq!(
            flow,
            Flow::tcp(
                End::pod("vault", "vault-0"),
                End::Ip("192.168.1.100".parse().unwrap()),
                6443
            )
        );
        let text = serde_json::to_string(&flow).unwrap();
        assert_eq!(serde_json::from_str::<Flow>(&text).unwrap(), flow);
    }

    #[test]
    fn what_is_no_end_says_what_would_be() {
        for bad in ["vault", "a/b/c", "/x", "x/", "", "10.0.0.300"] {
            let error = bad.parse::<End>().unwrap_err().to_string();
            assert!(error.contains("namespace/pod"), "{error}");
        }
        assert_eq!(
            "::ffff:10.0.0.1".parse::<End>().unwrap(),
            End::Ip("10.0.0.1".parse().unwrap())
        );
        let error = serde_json::from_str::<Flow>(r#"{"from":"a/b","to":"a/c","protocol":"tcp"}"#);
        assert!(error.unwrap_err().to_string().contains("protocol: `tcp`"));
    }
}
