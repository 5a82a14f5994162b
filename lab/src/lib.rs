//! A K3s-shaped network in namespaces of its own: the stage of the demo, the live tests and the
//! benchmarks.
//!
//! ```no_run
//! use std::time::Duration;
//! use lab::{Family, Lab, Wiring, traffic};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new(Wiring::Bridge)?;
//! let probe = traffic::Request::probe(
//!     lab.vault("vault-0", Family::V4),
//!     "/v1/sys/health",
//!     Duration::from_secs(1),
//! );
//! // From the node, as the kubelet does; through the node's firewall, to a real TLS server.
//! assert!(lab.https().get(lab.node(), &probe)?.is_success());
//! # Ok(()) }
//! ```
//!
//! - [`Lab`] holds namespaces, cables, servers and Services, and [`Lab::manifests`] says in YAML who
//!   is who. See [`plan`] for the addresses.
//! - [`enforcer`]: policy enforcers ([`enforcer::Enforcer`]) and single firewall rules, each with an
//!   exact counter of its own.
//! - [`kernel`]: what the running one has.
//! - [`kube`]: a real API server, and a real kubelet with real pods.
//! - [`traffic`]: connections, datagrams, pings, probes and API calls from inside a namespace, and the
//!   words in which a Go program would complain.
//!
//! Nothing of the root namespace is touched: namespaces are held by file descriptors of this process
//! alone, and are gone with it however it ends. Everything needs root.

mod bpffs;
mod command;
pub mod enforcer;
mod floor;
pub mod kernel;
pub mod kube;
mod lab;
mod lock;
mod manifests;
mod netns;
mod network;
mod object;
pub mod plan;
mod policy;
mod servers;
pub mod traffic;

pub use bpffs::Bpffs;
pub use command::find as find_program;
pub use floor::Floor;
pub use lab::{Lab, Pod};
pub use manifests::BROKEN_POLICY;
pub use netns::Netns;
pub use plan::{Addresses, Family, Wiring};
pub use policy::{Pods, Policies};
pub use servers::LogLine;
