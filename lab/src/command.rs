//! Running the network tools (`ip`, `nft`, `iptables`, ...) and saying clearly what went wrong.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where Debian keeps the network tools; a user's `PATH` often lacks the `sbin` folders.
const SBIN: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// The path of a tool: from `PATH`, else from the usual system folders.
pub fn find(tool: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SBIN.iter().map(PathBuf::from))
        .map(|dir| dir.join(tool))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("`{tool}` is not installed; run `cargo xtask setup`"))
}

/// Runs a tool in the calling thread's network namespace, feeds it `input`, and returns its stdout.
pub(crate) fn run<S: AsRef<OsStr>>(tool: &str, args: &[S], input: &str) -> Result<String> {
    let shown = || {
        let args: Vec<_> = args
            .iter()
            .map(|arg| arg.as_ref().to_string_lossy())
            .collect();
        format!("`{tool} {}`", args.join(" "))
    };
    let mut child = Command::new(find(tool)?)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown()))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // The tool gave up before reading everything: its own message says why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            other => other.with_context(|| format!("cannot write to {}", shown()))?,
        }
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {}", shown()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", shown(), output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", shown()))
}
