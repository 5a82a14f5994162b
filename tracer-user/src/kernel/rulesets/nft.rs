//! The rules of `nf_tables`, those of `iptables-nft` included, by netlink.
//!
//! Numbers are those of <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/netfilter/nf_tables.h>.

use std::collections::HashMap;
use std::io;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, NlaBuffer, NlasIterator, parse_u32, parse_u32_be,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::PATIENCE;
use super::graph::Chain;
use super::xt;
use crate::decode::Point;
use crate::enforcer::{Falls, Family};

/// `NFNL_SUBSYS_NFTABLES`, the upper half of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAINS: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULES: u16 = SUBSYSTEM | 7;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 0x0c;
const GET_ELEMENTS: u16 = SUBSYSTEM | 0x0d;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A netlink header, and netfilter's own (family, version, resource).
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// Attributes of a chain.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
/// Of a rule.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
/// Of an expression: its kind, and what it is about.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// Of `immediate`, down to a verdict.
const IMMEDIATE_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NF_DROP`.
const DROP: u32 = 0;
/// Of `reject`; TCP resets are 1.
const REJECT_TYPE: u16 = 1;
const REJECT_RESET: u32 = 1;
/// Of `ct`; 0 is the packet's state.
const CT_KEY: u16 = 2;
const CT_STATE: u32 = 0;
/// Of `bitwise`.
const BITWISE_MASK: u16 = 4;
/// `NF_CT_STATE_INVALID_BIT`.
const INVALID: u32 = 1;
/// Of `target` and `match`, which are `x_tables`' in `nf_tables`.
const XT_NAME: u16 = 1;
const XT_INFO: u16 = 3;
/// Of `lookup`: the set, and the register that what is found goes to, if anything does; 0 is the verdict.
const LOOKUP_SET: u16 = 1;
const LOOKUP_RESULT: u16 = 3;
const VERDICT: u32 = 0;
/// Of a set's elements.
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
/// Of one.
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;

/// A rule that asks a map for a verdict.
struct Asks {
    /// The chain, by its place among them all.
    chain: usize,
    map: String,
    /// For the packet's state.
    of_state: bool,
}

/// All chains of this network namespace. Needs `CAP_NET_ADMIN`.
pub(super) fn chains() -> io::Result<Vec<Chain>> {
    let mut chains = Vec::new();
    let mut by_name = HashMap::new();
    let everything = Request {
        get: GET_CHAINS,
        wanted: NEW_CHAIN,
        family: 0,
        attributes: &[],
    };
    dump(&everything, |family, attributes| {
        if let Some(chain) = chain(family, attributes) {
            let key = (chain.family, chain.table.clone(), chain.name.clone());
            by_name.insert(key, chains.len());
            chains.push(chain);
        }
    })?;
    if chains.is_empty() {
        return Ok(chains);
    }
    let mut asks = Vec::new();
    let everything = Request {
        get: GET_RULES,
        wanted: NEW_RULE,
        ..everything
    };
    dump(&everything, |family, attributes| {
        let key = (
            family,
            text(find(attributes, RULE_TABLE)),
            text(find(attributes, RULE_CHAIN)),
        );
        if let Some(&index) = by_name.get(&key)
            && let Some(chain) = chains.get_mut(index)
            && let Some(expressions) = find(attributes, RULE_EXPRESSIONS)
        {
            let maps = rule(chain, expressions);
            asks.extend(maps.into_iter().map(|(map, of_state)| Asks {
                chain: index,
                map,
                of_state,
            }));
        }
    })?;
    for asked in asks {
        if let Some(chain) = chains.get_mut(asked.chain)
            && ask(chain, &asked).is_err()
        {
            // It has gone, or cannot be told: anything may be in it.
            chain.calls_any = true;
        }
    }
    Ok(chains)
}

/// Adds what a map of verdicts has a chain do.
fn ask(chain: &mut Chain, asked: &Asks) -> io::Result<()> {
    let mut attributes = Vec::new();
    for (kind, text) in [(ELEMENTS_TABLE, &chain.table), (ELEMENTS_SET, &asked.map)] {
        put(&mut attributes, kind, text)?;
    }
    let request = Request {
        get: GET_ELEMENTS,
        wanted: NEW_ELEMENTS,
        family: number_of(chain.family),
        attributes: &attributes,
    };
    dump(&request, |_, message| {
        for element in self::attributes(find(message, ELEMENTS).unwrap_or_default()) {
            element_of(chain, element.value(), asked.of_state);
        }
    })
}

fn element_of(chain: &mut Chain, element: &[u8], of_state: bool) {
    let Some(data) = find(element, ELEMENT_DATA) else {
        return;
    };
    let key = find(element, ELEMENT_KEY).and_then(|key| find(key, DATA_VALUE));
    let invalid = of_state && key.and_then(|key| parse_u32(key).ok()) == Some(INVALID);
    decide(chain, data, invalid);
}

/// Adds what a verdict does.
fn decide(chain: &mut Chain, data: &[u8], invalid: bool) {
    let Some(verdict) = find(data, DATA_VERDICT) else {
        return;
    };
    if number(verdict, VERDICT_CODE) == Some(DROP) {
        let silent = Falls {
            silent: true,
            ..Falls::default()
        };
        fall(chain, invalid, silent);
    }
    let called = find(verdict, VERDICT_CHAIN).map(|name| text(Some(name)));
    chain.calls.extend(called);
}

/// What is asked of the kernel.
#[derive(Clone, Copy)]
struct Request<'attributes> {
    get: u16,
    /// The type of the answers.
    wanted: u16,
    /// 0 for each.
    family: u8,
    attributes: &'attributes [u8],
}

/// Adds an attribute of text.
fn put(attributes: &mut Vec<u8>, kind: u16, text: &str) -> io::Result<()> {
    let length = NLA_HEADER_SIZE + text.len() + 1;
    attributes.extend(
        u16::try_from(length)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    attributes.extend(kind.to_ne_bytes());
    attributes.extend(text.as_bytes());
    let end = attributes.len() + 1;
    attributes.resize(end.next_multiple_of(4), 0);
    Ok(())
}

fn dump(request: &Request<'_>, mut each: impl FnMut(Family, &[u8])) -> io::Result<()> {
    let Request { get, wanted, .. } = *request;
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(PATIENCE),
    )?;
    let length = HEADERS + request.attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(
        u32::try_from(length)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    message.extend(get.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence number, port.
    message.extend([0; HEADER - 8]);
    // Version, resource.
    message.extend([request.family, 0, 0, 0]);
    message.extend(request.attributes);
    socket.send(&message, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while let Some((kind, body, next)) = first_message(rest) {
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let code = body.first_chunk().copied().map(i32::from_ne_bytes);
                    let code = code.unwrap_or(-libc::EIO);
                    return Err(io::Error::from_raw_os_error(-code));
                }
                kind if kind == wanted => {
                    if let Some((family, attributes)) = body.split_at_checked(4)
                        && let Some(family) = self::family(family[0])
                    {
                        each(family, attributes);
                    }
                }
                _ => {}
            }
            rest = next;
        }
    }
}

/// Type and body of the first message, and what is behind it.
fn first_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

const fn number_of(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Netdev => 5,
        Family::Bridge => 7,
        Family::Ip6 => 10,
    }
}

const fn family(number: u8) -> Option<Family> {
    Some(match number {
        1 => Family::Inet,
        2 => Family::Ip,
        5 => Family::Netdev,
        7 => Family::Bridge,
        10 => Family::Ip6,
        _ => return None,
    })
}

fn hook(family: Family, number: u32) -> Option<Point> {
    Some(match (family, number) {
        (Family::Netdev, 0) | (Family::Inet, 5) => Point::Ingress,
        (Family::Netdev, 1) => Point::Egress,
        (Family::Netdev, _) => return None,
        (_, 0) => Point::Prerouting,
        (_, 1) => Point::Input,
        (_, 2) => Point::Forward,
        (_, 3) => Point::Output,
        (_, 4) => Point::Postrouting,
        _ => return None,
    })
}

/// The attributes of a list that are whole.
fn attributes(list: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(list).map_while(Result::ok)
}

fn find(list: &[u8], kind: u16) -> Option<&[u8]> {
    let found = attributes(list).find(|attribute| attribute.kind() == kind)?;
    let length = usize::from(found.length());
    found.into_inner().get(NLA_HEADER_SIZE..length)
}

/// Without the NUL at its end.
fn text(bytes: Option<&[u8]>) -> String {
    let bytes = bytes.unwrap_or_default();
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

fn number(list: &[u8], kind: u16) -> Option<u32> {
    parse_u32_be(find(list, kind)?).ok()
}

fn chain(family: Family, list: &[u8]) -> Option<Chain> {
    let table = text(find(list, CHAIN_TABLE));
    let mut chain = Chain::new(family, table, text(find(list, CHAIN_NAME)));
    if let Some(base) = find(list, CHAIN_HOOK) {
        chain.hook = Some(hook(family, number(base, HOOK_NUMBER)?)?);
        chain.falls.silent = number(list, CHAIN_POLICY) == Some(DROP);
    }
    Some(chain)
}

/// Adds what a rule does, by its expressions in their order; the maps that it asks for a verdict, and whether for
/// the packet's state.
fn rule(chain: &mut Chain, expressions: &[u8]) -> Vec<(String, bool)> {
    let mut maps = Vec::new();
    let mut of_state = false;
    let mut invalid = false;
    for element in attributes(expressions) {
        let expression = element.value();
        let name = text(find(expression, EXPRESSION_NAME));
        let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
        match name.as_str() {
            "ct" => of_state = number(data, CT_KEY) == Some(CT_STATE),
            "bitwise" if of_state => {
                let mask = find(data, BITWISE_MASK).and_then(|mask| find(mask, DATA_VALUE));
                invalid |= mask.and_then(|mask| parse_u32(mask).ok()) == Some(INVALID);
                of_state = false;
            }
            "match" => {
                let info = find(data, XT_INFO).unwrap_or_default();
                invalid |= xt::is_of_invalid(&text(find(data, XT_NAME)), info);
            }
            "immediate" => {
                let data = find(data, IMMEDIATE_DATA).unwrap_or_default();
                decide(chain, data, invalid);
            }
            "lookup" if number(data, LOOKUP_RESULT) == Some(VERDICT) => {
                maps.push((text(find(data, LOOKUP_SET)), of_state));
            }
            "reject" => {
                let reset = number(data, REJECT_TYPE) == Some(REJECT_RESET);
                let falls = Falls {
                    reset,
                    icmp: !reset,
                    ..Falls::default()
                };
                fall(chain, false, falls);
            }
            "target" => {
                let info = find(data, XT_INFO).unwrap_or_default();
                let name = text(find(data, XT_NAME));
                if let Some(falls) = xt::falls(&name, info, chain.family) {
                    fall(chain, invalid, falls);
                }
            }
            _ => {}
        }
    }
    maps
}

fn fall(chain: &mut Chain, invalid: bool, falls: Falls) {
    let falls = if invalid && falls.silent {
        Falls {
            invalid: true,
            ..Falls::default()
        }
    } else {
        falls
    };
    chain.falls = chain.falls.or(falls);
}
