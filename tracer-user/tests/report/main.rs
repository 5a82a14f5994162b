//! `tracer report`: the page, by a real parser, and the command around it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod command;
mod html;
mod page;

const INCIDENT: &str = include_str!("../data/incident.jsonl");
const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/incident.yaml");
