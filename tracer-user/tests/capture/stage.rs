//! The stage: a network namespace of the test's own, a rule with a counter in it, and a capture around
//! both. Nothing is waited for by the clock alone: a packet may be left to a kernel thread, which a busy
//! machine runs when it pleases.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio_util::sync::CancellationToken;
use tracer::decode::RawDrop;
use tracer::kernel::{Capture, Counters, Error, Options};

/// Packets of each kind: enough to see one that is lost or counted twice.
pub const PACKETS: u16 = 50;

/// How long what has to come may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The kernel gives a namespace's inode to the next one made: two tests side by side could take each
/// other's drops for their own.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `work` in a network namespace of its own, which goes away with the thread, and returns the
/// namespace's inode with the result.
fn in_own_netns<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (u32, T) {
    thread::spawn(move || {
        // SAFETY: only the network namespace of this new thread changes, which nobody else shares.
        #[expect(unsafe_code, reason = "entering a namespace")]
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
        let link = std::fs::read_link("/proc/thread-self/ns/net").expect("its name");
        let inode = link.to_string_lossy();
        let inode = inode.trim_start_matches("net:[").trim_end_matches(']');
        let inode = inode.parse().expect("its inode");
        run("ip", &["link", "set", "lo", "up"]);
        (inode, work())
    })
    .join()
    .expect("the work in the namespace")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect(program);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Whether live tests can run here; says so where not.
pub fn possible(programs: &[&str]) -> bool {
    let missing = programs
        .iter()
        .find(|program| Command::new(program).arg("--version").output().is_err());
    let why = match (missing, Capture::start(&Options::default())) {
        (Some(program), _) => format!("`{program}` is not installed"),
        (None, Err(error @ (Error::NoPrivilege { .. } | Error::LeftOut | Error::Btf(_)))) => {
            error.to_string()
        }
        (None, Err(error)) => panic!("{error}: {error:?}"),
        (None, Ok(_)) => return true,
    };
    assert!(
        std::env::var_os("TRACER_REQUIRE_ALL").is_none(),
        "required, but: {why}"
    );
    println!("SKIPPED: {why}");
    false
}

/// Waits until it is so, or for long enough; the caller asserts.
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A rule of this thread's network namespace, which counts what it meets.
pub struct Rule {
    table: &'static str,
}

impl Rule {
    /// Puts it in force at a hook: `matches`, a counter, `verdict`.
    pub fn install(hook: &str, matches: &str, verdict: &str) -> Self {
        Self::install_in("inet t", hook, matches, verdict)
    }

    /// The same in a table of another family.
    pub fn install_in(table: &'static str, hook: &str, matches: &str, verdict: &str) -> Self {
        Self::install_at(table, hook, 0, matches, verdict)
    }

    /// The same before or after others that are asked at the hook.
    pub fn install_at(
        table: &'static str,
        hook: &str,
        priority: i32,
        matches: &str,
        verdict: &str,
    ) -> Self {
        let commands = format!(
            "add table {table}; \
             add chain {table} c {{ type filter hook {hook} priority {priority}; }}; \
             add rule {table} c {matches} counter {verdict}"
        );
        run("nft", &[&commands]);
        Self { table }
    }

    /// Lets everything through again.
    pub fn remove(self) {
        run("nft", &[&format!("delete table {}", self.table)]);
    }

    /// Packets that it has met.
    pub fn packets(&self) -> u64 {
        let listing = run("nft", &[&format!("list table {}", self.table)]);
        let counter = listing.split_once("counter packets ").expect("a counter").1;
        let number = counter.split_once(' ').expect("its bytes").0;
        number.parse().expect("a number")
    }

    /// Waits until it has met so many, and says how many it then has.
    pub fn until(&self, packets: u64) -> u64 {
        wait_until(|| self.packets() >= packets);
        self.packets()
    }

    /// Sends packets that it is to stop to a port where someone listens, and says whence.
    pub fn stops(&self, to: IpAddr, port: u16) -> SocketAddr {
        let (listener, sender) = ends(to, port);
        let before = self.packets();
        // One dropped on its way out is reported to the sender.
        for _ in 0..PACKETS {
            drop(sender.send_to(b"twelve bytes", (to, port)));
        }
        let met = self.until(before + u64::from(PACKETS)) - before;
        assert_eq!(met, u64::from(PACKETS));
        listener.set_nonblocking(true).expect("no waiting");
        let arrived = listener.recv(&mut [0; 16]).map_err(|error| error.kind());
        assert_eq!(arrived, Err(ErrorKind::WouldBlock));
        sender.local_addr().expect("its address")
    }
}

/// Sends packets that do not come.
pub fn sends(to: IpAddr, port: u16) {
    let (_listener, sender) = ends(to, port);
    for _ in 0..PACKETS {
        sender
            .send_to(b"twelve bytes", (to, port))
            .expect("it is sent");
    }
}

/// Sends packets to a port where someone listens, until they have all come.
pub fn arrives(to: IpAddr, port: u16) {
    let (listener, sender) = ends(to, port);
    listener
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout");
    for _ in 0..PACKETS {
        sender
            .send_to(b"twelve bytes", (to, port))
            .expect("it is sent");
        listener.recv(&mut [0; 16]).expect("it comes");
    }
}

/// Who listens, and who sends.
fn ends(to: IpAddr, port: u16) -> (UdpSocket, UdpSocket) {
    let listener = UdpSocket::bind((to, port)).expect("a listener");
    (listener, UdpSocket::bind((to, 0)).expect("a sender"))
}

/// Until so many packets have been told.
pub fn packets(wanted: u64) -> impl Fn(&[RawDrop], Counters) -> bool + Send {
    move |drops, _| drops.iter().map(|drop| drop.count).sum::<u64>() >= wanted
}

/// Captures while `work` runs in a namespace of its own and until what was dropped there is `enough`, and
/// returns it.
pub fn capture<T: Send + 'static>(
    options: &Options,
    work: impl FnOnce() -> T + Send + 'static,
    enough: impl Fn(&[RawDrop], Counters) -> bool + Send,
) -> (Vec<RawDrop>, Counters, T) {
    capture_in(options, || in_own_netns(work), enough)
}

/// The same with what was dropped in the network namespace that `work` names.
pub fn capture_in<T: Send>(
    options: &Options,
    work: impl FnOnce() -> (u32, T) + Send,
    enough: impl Fn(&[RawDrop], Counters) -> bool + Send,
) -> (Vec<RawDrop>, Counters, T) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let options = Options {
        // The end waits for the repeats.
        fold_every: options.fold_every.min(Duration::from_millis(50)),
        ..options.clone()
    };
    let mut capture = Capture::start(&options).expect("a capture");
    let meter = capture.meter();
    let mut decoder = capture.decoder();
    let cancel = CancellationToken::new();
    let ended = cancel.clone().drop_guard();
    let told = Mutex::new(Vec::new());
    let (told, meter) = (&told, &meter);
    let of = move |netns| {
        let mut drops: Vec<RawDrop> = told.lock().expect("the drops").clone();
        drops.retain(|drop| drop.netns == Some(netns));
        drops
    };
    let (netns, result) = thread::scope(|scope| {
        let worker = scope.spawn(move || {
            // Also when the work panics. Nothing dropped before this may be missing.
            let _ended = ended;
            let (netns, result) = work();
            wait_until(|| enough(&of(netns), meter.counters().expect("counters")));
            (netns, result)
        });
        runtime()
            .block_on(capture.run(cancel, |record| {
                let drop = decoder.decode(record).expect("a record");
                told.lock().expect("the drops").push(drop);
                true
            }))
            .expect("a run");
        worker.join().expect("the work")
    });
    (of(netns), meter.counters().expect("counters"), result)
}

/// What was captured with nobody draining the ring meanwhile.
pub struct Lazily<T> {
    /// What was dropped in the namespace, and what has no flow, wherever it was dropped.
    pub drops: Vec<RawDrop>,
    pub counters: Counters,
    /// Packets that others dropped meanwhile, or a little before or after.
    pub strangers: u64,
    pub result: T,
}

/// As [`capture`], with nobody draining the ring while `work` runs, which has to wait for its drops itself.
pub fn capture_lazily<T: Send + 'static>(
    options: &Options,
    work: impl FnOnce() -> T + Send + 'static,
) -> Lazily<T> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // With room for all, and longer than the other.
    let mut whole = Capture::start(&Options::default()).expect("a capture");
    let mut capture = Capture::start(options).expect("a capture");
    let (netns, result) = in_own_netns(work);
    let counters = capture.counters().expect("counters");
    let mut drops = rest(&mut capture);
    drops.retain(|drop| drop.flow.is_none() || drop.netns == Some(netns));
    let strangers = rest(&mut whole)
        .iter()
        .filter(|drop| drop.netns != Some(netns))
        .map(|drop| drop.count)
        .sum();
    Lazily {
        drops,
        counters,
        strangers,
        result,
    }
}

/// Ends a capture.
fn rest(capture: &mut Capture) -> Vec<RawDrop> {
    let mut decoder = capture.decoder();
    let mut drops = Vec::new();
    let cancel = CancellationToken::new();
    cancel.cancel();
    runtime()
        .block_on(capture.run(cancel, |record| {
            drops.push(decoder.decode(record).expect("a record"));
            true
        }))
        .expect("a run");
    drops
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
