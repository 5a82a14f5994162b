//! Traffic from inside a namespace, and what its sender sees of it.
//!
//! Every function does the real thing on a real socket and reports what came of it, worded as Go's
//! standard library words it where there is an error text: these are the misleading lines people
//! find in their logs.

mod connect;
mod dns;
mod flood;
mod https;
mod ping;
mod settle;
mod udp;

pub use connect::{TcpOutcome, repeated_syns, tcp_connect};
pub use dns::{DnsOutcome, dns_lookup};
pub use flood::{Flooded, Until, udp_flood};
pub use https::{Dialed, HttpsClient, HttpsOutcome, Request, Stage, Timeouts};
pub use ping::{Ping, ping};
pub use settle::{settled, until_counted};
pub use udp::{UdpSent, udp_send};
