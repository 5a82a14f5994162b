//! A pure Kubernetes `NetworkPolicy` engine: evaluate, explain, suggest.
//!
//! No I/O, no async, no unsafe: objects go in, verdicts come out.
//!
//! ```
//! use tracer_policy::model::{Namespace, ObjectRef};
//! use tracer_policy::{Cluster, End, Flow};
//!
//! let mut cluster = Cluster::new();
//! cluster.apply_namespace(Namespace { name: "vault".into(), labels: Default::default() });
//! let flow = Flow::tcp(End::Ip("10.10.0.11".parse()?), End::Ip("192.0.2.1".parse()?), 443);
//! let verdict = cluster.evaluate(&flow);
//! assert!(verdict.is_allowed()); // neither end is a pod: no policy has a say
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
#![forbid(unsafe_code)]

mod cluster;
mod evaluate;
pub mod explain;
mod flow;
mod intern;
pub mod lint;
mod metadata;
pub mod model;
mod ordered;
mod policy;
mod profile;
mod selector;
mod service_range;
mod suggest;
mod verdict;
mod yaml;

pub use cluster::{Cluster, Decides, Former, Owner, Role};
pub use evaluate::Packet;
pub use flow::{End, Flow, Icmp, ParseEndError};
pub use metadata::is_metadata_service;
pub use ordered::OrderedPolicy;
pub use policy::{CompileError, Direction, Policy, PolicyKind, PolicyRef, Problem};
pub use profile::{Detected, ParseProfileError, Profile, ProfileName};
pub use suggest::{Advice, CiliumPolicy, NewlyAllowed, Refusal, Suggestion, suggest};
pub use verdict::{
    EndpointVerdict, Exemption, Failed, NearestMiss, Outcome, RuleRef, ServiceHop, Side,
    SideVerdict, Verdict,
};
