//! A pure Kubernetes `NetworkPolicy` engine: evaluate, explain, suggest.
//!
//! No I/O, no async, no unsafe: objects go in, verdicts come out.
#![forbid(unsafe_code)]

pub mod model;
