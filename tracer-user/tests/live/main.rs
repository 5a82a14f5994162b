//! The whole product on a live kernel: real packets in the lab's namespaces, the real `tracer` binary on
//! its node, each event asserted whole and each count held against the firewall's own.

mod agent;
mod btf;
mod end;
mod enforcers;
mod exact;
mod expect;
mod floods;
mod invalid;
mod privilege;
mod program;
mod restart;
mod rules;
mod watch;
mod whose;
