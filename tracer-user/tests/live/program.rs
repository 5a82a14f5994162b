//! The program under test.

use std::env;
use std::path::PathBuf;

/// The `tracer` that cargo built, or the file that `TRACER_PROGRAM` names: on an emulated machine the optimized one
/// starts in a fraction of the time.
pub fn tracer() -> PathBuf {
    env::var_os("TRACER_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_tracer").into(), PathBuf::from)
}
