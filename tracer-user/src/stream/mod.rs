//! The agent's stream: drops as JSON lines over a Unix socket, live and from a bounded history.
//!
//! A client sends one line, a [`Request`]; the agent answers with one line, a [`Greeting`], then with
//! drops, one a line as in `-o json`. A reader that falls behind by more than the stream buffers is
//! cut off with a last line, [`CutOff`], that counts what it missed: it never slows the agent.

pub mod access;
mod client;
mod history;
mod server;

pub use access::Access;
pub use client::{Client, ClientError, drain};
pub use history::History;
pub use server::{BindError, Publisher, Says, Server, Waiting};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where the agent listens and `tracer watch` looks.
pub const DEFAULT_SOCKET: &str = "/run/tracer/tracer.sock";

/// The stream's version; a client of another one is told so.
pub const VERSION: u32 = 1;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the client.
    pub version: u32,
    /// From the history, the last this many drops; none of it where both this and `since` are absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// From the history, what happened since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Whether to go on with what happens from now on.
    pub follow: bool,
    /// Wants no drops, but a [`Rest`] once nothing waits to be told any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
}

/// The agent's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// [`VERSION`] of the agent.
    pub version: u32,
    /// The agent's node.
    pub node: String,
    /// Why the agent will send nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What is to be said of the cluster state that its drops are attributed by, where that is not whole and
    /// current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// The last line to a reader that was too slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    /// Drops that it missed.
    pub missed: u64,
}

/// The one line to who drains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// Drops and Kubernetes Events that wait all the same: it took too long.
    pub waiting: usize,
}

#[cfg(test)]
mod tests;
