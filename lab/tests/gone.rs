//! However a lab's process ends, nothing of the lab is left, and the host is as it was.

mod common;

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use common::lab;
use lab::enforcer::{Enforcer, KubeRouter, Tc};
use lab::{BROKEN_POLICY, Policies, Wiring, find_program};
use rustix::process::{Pid, Signal, kill_process};

/// Set in the process that is to end.
const ENDING: &str = "LAB_TEST_ENDING";

/// The process that is to end; run by the test below, and doing nothing by itself.
#[test]
#[expect(
    clippy::zombie_processes,
    reason = "it ends before its child, which is what the test is about"
)]
fn the_process_that_ends() {
    if env::var_os(ENDING).is_none() {
        return;
    }
    let lab = lab(Wiring::Bridge).unwrap();
    let policies = Policies::parse(BROKEN_POLICY).unwrap();
    let mut tc = Tc::default();
    tc.install(&lab, &policies).unwrap();
    let mut kube_router = KubeRouter::new(lab::enforcer::Backend::IptablesLegacy);
    kube_router.install(&lab, &policies).unwrap();
    let child = lab
        .spawn_on_node("sleep", |sleep| {
            sleep.arg("1000");
        })
        .unwrap();
    let mut namespaces = vec![lab.node(), lab.router(), lab.master(), lab.remote()];
    namespaces.extend(lab.pods().iter().map(lab::Pod::netns));
    let inodes: Vec<_> = namespaces
        .iter()
        .map(|netns| netns.inode().unwrap().to_string())
        .collect();
    println!("READY {} {}", child.id(), inodes.join(" "));
    // Until the test ends this process, one way or another.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    panic!("the lab's process was told to panic");
}

#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    /// Killed before what it starts on the node can ask to be killed with it.
    KillEarly,
    Interrupt,
    Panic,
}

#[test]
fn nothing_outlives_the_process() {
    if !common::may_build_labs() {
        return;
    }
    for end in [End::Kill, End::KillEarly, End::Interrupt, End::Panic] {
        ends(end).unwrap_or_else(|error| panic!("{end:?}: {error:#}"));
    }
}

fn ends(end: End) -> Result<()> {
    let before = host()?;
    let folder = tempfile::tempdir()?;
    let errors = folder.path().join("stderr");
    let mut process = Command::new(env::current_exe()?);
    process
        .args(["--exact", "the_process_that_ends", "--nocapture"])
        .env(ENDING, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&errors)?);
    if matches!(end, End::KillEarly) {
        process.env("PATH", late_setpriv(folder.path())?);
    }
    let mut process = process.spawn()?;
    let stdin = process.stdin.take();
    let stdout = BufReader::new(process.stdout.take().context("no stdout")?);
    // The harness writes in front of the first line.
    let ready = stdout
        .lines()
        .map_while(std::result::Result::ok)
        .find_map(|line| Some(line.split_once("READY ")?.1.to_owned()));
    let ready = ready.with_context(|| {
        let errors = fs::read_to_string(&errors).unwrap_or_default();
        format!("the lab's process did not get ready: {errors}")
    })?;
    let mut numbers = ready.split(' ').map(str::to_owned);
    let child = numbers.next().context("no child")?;
    let namespaces: BTreeSet<_> = numbers.map(|inode| format!("net:[{inode}]")).collect();
    assert_eq!(namespaces.len(), 8);
    assert!(
        !holders(&namespaces)?.is_empty(),
        "the check sees living labs"
    );

    let pid = Pid::from_child(&process);
    match end {
        End::Kill | End::KillEarly => kill_process(pid, Signal::KILL)?,
        End::Interrupt => kill_process(pid, Signal::INT)?,
        End::Panic => drop(stdin),
    }
    let status = process.wait()?;
    assert!(!status.success());

    until(|| Ok(!alive(&child))).context("what ran on the node is still alive")?;
    until(|| Ok(holders(&namespaces)?.is_empty())).context("a namespace is still held")?;
    assert_eq!(host()?, before);
    Ok(())
}

/// A `PATH` on which `setpriv` does its work once the process that started it has ended.
fn late_setpriv(folder: &Path) -> Result<OsString> {
    let real = find_program("setpriv")?;
    let late = folder.join("setpriv");
    let script = format!(
        "#!/bin/sh\nwhile [ -d /proc/$PPID ]; do :; done\nexec {} \"$@\"\n",
        real.display()
    );
    fs::write(&late, script)?;
    fs::set_permissions(&late, Permissions::from_mode(0o755))?;
    let path = env::var_os("PATH").unwrap_or_default();
    let first = std::iter::once(folder.to_owned());
    Ok(env::join_paths(first.chain(env::split_paths(&path)))?)
}

/// Whether a process is there and not merely waiting to be reaped.
fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| !state.starts_with('Z'))
}

/// Waits for what the kernel does by itself after a process's end.
fn until(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done()? {
        if Instant::now() > deadline {
            bail!("not within 30 s");
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Links under `/proc` that hold one of the namespaces, as a process or as a file descriptor.
fn holders(namespaces: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        // Processes come and go meanwhile.
        let fds = fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let links = fds.map(|fd| fd.path()).chain([process.join("ns/net")]);
        for link in links {
            if let Ok(target) = fs::read_link(&link)
                && namespaces.contains(&*target.to_string_lossy())
            {
                found.push(link.display().to_string());
            }
        }
    }
    Ok(found)
}

/// What a lab must leave alone.
fn host() -> Result<Vec<String>> {
    let mut state = Vec::new();
    for path in [
        "/proc/net/route",
        "/proc/net/ipv6_route",
        "/proc/net/if_inet6",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv4/ping_group_range",
    ] {
        let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
        // Reference and use counts of routes are not configuration.
        let lines = text.lines().map(|line| match path {
            "/proc/net/ipv6_route" => line
                .split_whitespace()
                .take(6)
                .collect::<Vec<_>>()
                .join(" "),
            _ => line.to_owned(),
        });
        state.extend(lines);
    }
    let mut interfaces: Vec<_> = fs::read_dir("/sys/class/net")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    interfaces.sort();
    state.extend(interfaces);
    state.push(format!("/run/netns: {}", Path::new("/run/netns").exists()));
    let rules = Command::new("nft")
        .args(["list", "ruleset"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()?;
    state.push(String::from_utf8(rules.stdout)?);
    Ok(state)
}
