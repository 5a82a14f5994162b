//! Drops while the cluster changes, from record to sink.

use std::sync::Mutex;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tracer_common::{ABI, DropEvent, Headers, MAGIC, RECORD, field, has};
use tracer_policy::model::ObjectRef;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::*;
use crate::cluster::Kind;
use crate::cluster::live::{Keeper, Status, Update, Updates};
use crate::cluster::object::{Object, Unknown};
use crate::decode::Resolve;
use crate::filter::Filter;
use crate::kernel::Settled;
use crate::record::{Class, PolicyVerdict};
use crate::sink::Sink;
use crate::sink::metrics::Metrics;

pub(super) const WEB: &str = "10.42.1.5";
const CLIENT: &str = "10.42.1.6";

struct Names;

impl Resolve for Names {
    fn reason(&self, _number: u32) -> Option<String> {
        Some("NETFILTER_DROP".to_owned())
    }

    fn symbol(&mut self, _address: u64) -> Option<String> {
        None
    }
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap()
}

/// A SYN that netfilter drops now.
fn event(from: &str, to: &str) -> DropEvent {
    let ip = |text: &str| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&text.parse::<std::net::Ipv4Addr>().unwrap().octets());
        bytes
    };
    let mut event = DropEvent::new_zeroed();
    event.magic = MAGIC;
    event.abi = ABI;
    event.size = RECORD;
    event.ktime_ns = monotonic_ns();
    event.count = 1;
    event.fields = field::HEADERS | field::REASON;
    event.headers = Headers {
        source: ip(from),
        destination: ip(to),
        source_port: 40000,
        destination_port: 80,
        version: 4,
        protocol: 6,
        tcp_flags: 2,
        has: has::PORTS | has::TCP_FLAGS,
        ..Headers::default()
    };
    event
}

pub(super) fn raw(from: &str, to: &str) -> RawDrop {
    let mut decoder = Decoder::new(Box::new(Names));
    decoder.decode(event(from, to).as_bytes()).unwrap()
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Drop>>>);

impl Sink for Told {
    fn accept(&mut self, drop: &Drop, _raw: Option<&RawDrop>) -> std::io::Result<()> {
        self.0.lock().unwrap().push(drop.clone());
        Ok(())
    }
}

impl Told {
    fn take(&self) -> Vec<Drop> {
        mem::take(&mut *self.0.lock().unwrap())
    }
}

/// The sinks' side with a cluster that the test changes: pods `web` and `client` in namespace `n`.
struct Line {
    stages: Stages,
    following: Following,
    updates: mpsc::Sender<Update>,
    outlet: Outlet,
    told: Told,
    losses: Losses,
}

impl Line {
    fn new() -> Self {
        let (updates, receiver) = mpsc::channel(64);
        let status = Status::default();
        let mut keeper = Keeper::default();
        keeper.expect([Kind::Pod]);
        let told = Told::default();
        let mut line = Self {
            stages: Stages {
                decoder: Decoder::new(Box::new(Names)),
                clock: Clock::new(),
                attributor: Attributor::new("node-a".into(), None),
                tc: TcPrograms::new("/nonexistent".as_ref()),
                devices: DeviceNames::new(),
                rulesets: Rulesets::new(),
                sizes: Arc::default(),
                following: None,
                ledger: None,
            },
            following: Following::new(Updates { receiver, status }, keeper),
            updates,
            outlet: Outlet::new(Filter::default(), vec![Box::new(told.clone())], None),
            told,
            losses: Losses::default(),
        };
        line.change(Update::Begin(Kind::Pod));
        line.apply(Kind::Namespace, &json!({"metadata": {"name": "n"}}));
        line.apply(
            Kind::Node,
            &json!({"metadata": {"name": "node-a"}, "spec": {"podCIDRs": ["10.42.1.0/24"]}}),
        );
        line.pod("web", WEB);
        line.pod("client", CLIENT);
        line.change(Update::End(Kind::Pod));
        line
    }

    fn change(&mut self, update: Update) {
        self.updates.try_send(update).unwrap();
        self.following.catch_up(&mut self.stages, &mut self.outlet);
    }

    fn apply(&mut self, kind: Kind, object: &Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let id = ObjectRef::new(text("namespace"), text("name"));
        let object = Object::read(kind, object, Unknown::Ignore).unwrap();
        self.change(Update::Apply(kind, id, object));
    }

    fn pod(&mut self, name: &str, ip: &str) {
        self.pod_since(name, ip, "2026-01-01T00:00:00Z");
    }

    fn pod_since(&mut self, name: &str, ip: &str, start: &str) {
        let pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": name}},
            "spec": {"nodeName": "node-a", "containers": []},
            "status": {"phase": "Running", "podIP": ip, "startTime": start}});
        self.apply(Kind::Pod, &pod);
    }

    /// A policy that lets nobody in to `web`.
    fn close(&mut self) {
        let policy = json!({"metadata": {"name": "closed", "namespace": "n"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}}});
        self.apply(Kind::NetworkPolicy, &policy);
    }

    fn open(&mut self) {
        self.change(Update::Delete(
            Kind::NetworkPolicy,
            ObjectRef::new("n", "closed"),
        ));
    }

    /// A packet from `from` to `web` is dropped.
    fn drop_from(&mut self, from: &str) {
        let record = Record::of(event(from, WEB).as_bytes());
        let (stages, following) = (&mut self.stages, Some(&mut self.following));
        assert!(take(record, stages, following, &mut self.outlet, &self.losses).unwrap());
    }

    /// All that waits is told.
    fn end(&mut self) -> Vec<Drop> {
        while let Some(held) = self.following.waiting.release_any() {
            give(&held.raw, held.time, &mut self.stages, &mut self.outlet).unwrap();
        }
        keep_up(&mut self.stages, &self.following, &mut self.outlet).unwrap();
        self.told.take()
    }
}

fn verdict(drop: &Drop) -> PolicyVerdict {
    drop.policy.as_ref().unwrap().verdict
}

#[test]
fn a_policy_that_the_node_knew_first_denies_what_it_denied() {
    let mut line = Line::new();
    line.drop_from(CLIENT);
    assert_eq!(line.told.take(), [], "it may be that we do not know all");
    assert_eq!(line.following.waiting.records().count(), 1);
    line.close();
    let told = line.end();
    assert_eq!(told.len(), 1);
    assert_eq!(verdict(&told[0]), PolicyVerdict::Denied);
    line.drop_from(CLIENT);
    assert_eq!(
        verdict(&line.told.take()[0]),
        PolicyVerdict::Denied,
        "at once"
    );
}

#[test]
fn what_no_policy_comes_to_deny_is_a_disagreement() {
    let mut line = Line::new();
    line.drop_from(CLIENT);
    let told = line.end();
    assert!(told[0].is_disagreement(), "{:?}", told[0]);
}

#[test]
fn a_new_pod_of_a_node_whose_clock_is_ahead_is_new_all_the_same() {
    let mut line = Line::new();
    let start = line.stages.clock.now() + SignedDuration::from_hours(1);
    line.pod_since("late", "10.42.1.7", &start.to_string());
    line.drop_from("10.42.1.7");
    let told = line.told.take();
    assert_eq!(told[0].class, Some(Class::PolicyRace), "{told:?}");
    assert_eq!(
        told[0].source.as_ref().unwrap().pod.as_deref(),
        Some("late")
    );
}

#[test]
fn what_a_policy_denied_until_of_late_is_a_race() {
    let mut line = Line::new();
    line.close();
    line.open();
    line.drop_from(CLIENT);
    let told = line.told.take();
    assert_eq!(told[0].class, Some(Class::PolicyRace), "{:?}", told[0]);
    assert_eq!(
        told[0].notes,
        ["policy n/closed was deleted 0 s before this drop"]
    );
    line.stages
        .attributor
        .clock_was_set(SignedDuration::from_secs(-10));
    line.drop_from(CLIENT);
    assert!(line.end()[0].is_disagreement(), "ten seconds later");
}

#[test]
fn a_clock_that_is_set_does_not_move_who_had_an_address() {
    for step in [-3600, 3600] {
        let mut line = Line::new();
        line.drop_from("10.42.1.7");
        assert_eq!(line.following.waiting.records().count(), 1);
        line.stages
            .clock
            .set_for_tests(SignedDuration::from_secs(step));
        line.pod("late", "10.42.1.7");
        let released = line.following.release(&line.stages.attributor);
        let Some(Released::Known(held)) = released else {
            panic!("{step}: {released:?}");
        };
        let drop = line.stages.attributor.judge(&held.raw, held.time);
        assert_eq!(drop.source.unwrap().pod.as_deref(), Some("late"), "{step}");
        line.change(Update::Delete(Kind::Pod, ObjectRef::new("n", "client")));
        line.stages
            .clock
            .set_for_tests(SignedDuration::from_secs(-step));
        line.following.catch_up(&mut line.stages, &mut line.outlet);
        let (cluster, now) = (
            line.stages.attributor.cluster_mut(),
            line.stages.clock.now(),
        );
        let owner = |after| {
            let time = now + SignedDuration::from_secs(after);
            let owner =
                cluster.owner_at(CLIENT.parse().unwrap(), time, tracer_policy::Role::Sender);
            matches!(owner, Some(tracer_policy::Owner::Pod(_)))
        };
        assert_eq!([-60, 60].map(owner), [true, false], "{step}");
    }
}

/// What is logged meanwhile, a line each.
fn logged(run: impl FnOnce()) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = mem::take(&mut *log.0.lock().unwrap());
    String::from_utf8(bytes)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn records_that_cannot_be_decoded_are_counted_and_said_once_a_kind() {
    let mut line = Line::new();
    let whole = event(CLIENT, WEB);
    let foreign = DropEvent { magic: 7, ..whole };
    let lines = logged(|| {
        for _ in 0..3 {
            for record in [foreign.as_bytes(), &whole.as_bytes()[..9]] {
                let (stages, following) = (&mut line.stages, Some(&mut line.following));
                let record = Record::of(record);
                assert!(take(record, stages, following, &mut line.outlet, &line.losses).unwrap());
            }
        }
    });
    assert_eq!(line.losses.decode(), 6);
    assert_eq!(lines.len(), 2, "{lines:?}");
}

/// A line that keeps a ledger at a path.
struct Books {
    line: Line,
    settled: Settled,
    caught_up: watch::Receiver<bool>,
    folder: TempDir,
}

impl Books {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settled = Settled::default();
        let ledger = Ledger::new(
            folder.path().join("ledger"),
            Arc::new(Metrics::new(100).unwrap()),
            Arc::default(),
            settled.clone(),
        );
        let caught_up = ledger.caught_up();
        let mut line = Line::new();
        line.stages.ledger = Some(ledger);
        Self {
            line,
            settled,
            caught_up,
            folder,
        }
    }

    /// A packet from `from` is dropped, and marked as told.
    fn drop_from(&mut self, number: u64, from: &str) {
        self.line.drop_from(from);
        let marks = Marks::of_record(number, &event(from, WEB));
        let Line {
            stages,
            following,
            outlet,
            ..
        } = &mut self.line;
        keep(marks, stages, Some(following), outlet).unwrap();
    }

    /// Packets that the next agent takes for told, and the marks that are settled.
    fn kept(&self) -> (u64, u64) {
        let past = Past::read(&self.folder.path().join("ledger")).unwrap();
        (past.marks.packets(), self.settled.number())
    }
}

const UNKNOWN: &str = "10.42.1.99";

#[test]
fn what_waits_is_settled_once_the_sinks_have_it() {
    let mut books = Books::new();
    books.drop_from(1, UNKNOWN);
    assert_eq!(books.kept(), (0, 0), "it waits");
    assert!(!*books.caught_up.borrow());
    assert_eq!(books.line.end().len(), 1);
    assert_eq!(books.kept(), (1, 1));
    assert!(*books.caught_up.borrow());
}

#[test]
fn what_comes_after_the_marks_is_in_the_next() {
    let mut books = Books::new();
    books.drop_from(1, UNKNOWN);
    books.line.drop_from(CLIENT);
    books.line.end();
    // These marks would have the next agent tell the second one again.
    assert_eq!(books.kept(), (0, 0));
    books.drop_from(2, CLIENT);
    books.line.end();
    assert_eq!(books.kept(), (1, 2));
}

#[test]
fn who_waits_all_the_time_holds_up_nobody_else() {
    let mut books = Books::new();
    books.line.close();
    books.drop_from(1, CLIENT);
    assert_eq!(books.kept(), (1, 1));
    books.drop_from(2, UNKNOWN);
    let first = books.line.following.waiting.release_any().unwrap();
    books.drop_from(3, UNKNOWN);
    assert_eq!(books.kept(), (0, 2), "the second has gone, the third waits");
    assert_eq!(first.number, 2);
}
