//! `tracer`: who dropped my packet, and which line of YAML lets it through.
//!
//! The way of a drop, one direction only: `kernel` → `decode` → `enrich` → `explain` → `classify` →
//! `sink`. The stages between are pure: they import neither aya nor kube nor tokio.
#![deny(unsafe_code)]

pub mod attribute;
pub mod classify;
pub mod cli;
pub mod cluster;
pub mod correlate;
pub mod curable;
pub mod cure;
pub mod decode;
pub mod enforcer;
pub mod enrich;
pub mod explain;
pub mod filter;
mod fingerprint;
pub mod http;
pub mod kernel;
pub mod pipeline;
pub mod record;
pub mod report;
pub mod sink;
pub mod stream;
