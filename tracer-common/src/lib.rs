//! The wire contract between tracer's eBPF programs and its user space.
#![no_std]
#![forbid(unsafe_code)]
