//! Why nothing can be captured.

use std::path::PathBuf;

use super::btf::BtfError;
use super::reasons::UnknownReason;

/// Why nothing can be captured. All but [`Error::Reason`] mean that the environment lacks something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary was built without bpf-linker or rust-src.
    #[error(
        "this build of tracer has no eBPF programs in it: run `cargo xtask setup` and build again"
    )]
    LeftOut,
    /// The process lacks privileges.
    #[error("no privilege to load eBPF programs: {}", missing_text(.missing, *.memlock))]
    NoPrivilege {
        /// Capabilities it would need and does not have.
        missing: Vec<&'static str>,
        /// Bytes of memory that it may lock, where that is limited.
        memlock: Option<u64>,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel's type information is missing or of no use.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A drop reason was asked for that the kernel does not have.
    #[error(transparent)]
    Reason(#[from] UnknownReason),
    /// The kernel's verifier refused a program.
    #[error("the kernel refused the eBPF program `{program}`; its verifier says:\n{log}")]
    Verifier {
        /// The program.
        program: &'static str,
        /// The end of the verifier's log.
        log: String,
    },
    /// A program could not be loaded or attached for another reason.
    #[error("cannot load the eBPF programs")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file or the event loop gave an error.
    #[error("cannot {action}{}", path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what, if it was a file.
        path: Option<PathBuf>,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Loading failed for a reason of the library's.
pub(super) fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Load(Box::new(error))
}

fn missing_text(missing: &[&str], memlock: Option<u64>) -> String {
    if !missing.is_empty() {
        return format!(
            "{} missing; run as root, or grant the capabilities",
            missing.join(" and ")
        );
    }
    let limit = memlock.map_or_else(String::new, |bytes| {
        format!(
            "; or, on Linux before 5.11, because it may lock no more than {} KiB of memory: raise that limit \
             (`ulimit -l unlimited`, LimitMEMLOCK=infinity of the container runtime's unit) or grant CAP_SYS_RESOURCE",
            bytes / 1024
        )
    });
    format!(
        "the kernel says no although the capabilities are there, as in a user namespace or under \
         kernel lockdown{limit}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_a_way_out() {
        let text = missing_text(&["CAP_BPF", "CAP_PERFMON"], Some(65_536));
        assert_eq!(
            text,
            "CAP_BPF and CAP_PERFMON missing; run as root, or grant the capabilities"
        );
        let text = missing_text(&[], Some(65_536));
        assert!(
            text.contains("no more than 64 KiB") && text.contains("CAP_SYS_RESOURCE"),
            "{text}"
        );
        assert!(!missing_text(&[], None).contains("KiB"));
    }
}
