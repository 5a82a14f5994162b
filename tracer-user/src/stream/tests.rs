use std::sync::Arc;
use std::sync::mpsc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::record::Drop;
use crate::sink::Sink as _;

fn probe(second: i64) -> Drop {
    let mut drop: Drop = serde_json::from_str(include_str!("../../tests/data/probe.json")).unwrap();
    drop.time = Timestamp::from_second(second).unwrap();
    drop
}

fn request(last: Option<usize>, since: Option<i64>, follow: bool) -> Request {
    let since = since.map(|second| Timestamp::from_second(second).unwrap());
    Request {
        version: VERSION,
        last,
        since,
        follow,
        drain: false,
    }
}

/// An agent's stream in a thread of its own, and what feeds it.
struct Agent {
    path: std::path::PathBuf,
    publisher: Publisher,
    waiting: [watch::Sender<usize>; 2],
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/tracer.sock");
        let (sender, receiver) = mpsc::channel();
        let stop = CancellationToken::new();
        let waiting = [0, 0].map(watch::Sender::new);
        let watched = waiting.each_ref().map(watch::Sender::subscribe);
        let thread = {
            let (path, stop) = (path.clone(), stop.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let server =
                        Server::bind(&path, Access::default(), "node-a", History::new(3, 1 << 20))
                            .unwrap();
                    sender.send(server.publisher()).unwrap();
                    let says = Arc::new(|| Some("the state is old".to_owned()));
                    server.serve(says, Arc::new(watched), stop).await;
                });
            })
        };
        let publisher = receiver.recv().unwrap();
        Self {
            path,
            publisher,
            waiting,
            stop,
            thread: Some(thread),
            _folder: folder,
        }
    }

    fn drops(&mut self, seconds: std::ops::Range<i64>) {
        let mut drop = probe(0);
        for second in seconds {
            drop.time = Timestamp::from_second(second).unwrap();
            self.publisher.accept(&drop, None).unwrap();
        }
    }
}

impl std::ops::Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
        assert!(!self.path.exists(), "the socket is removed");
    }
}

fn seconds(client: Client) -> Vec<i64> {
    client.map(|drop| drop.unwrap().time.as_second()).collect()
}

#[test]
fn history_answers_last_and_since_and_forgets_the_oldest() {
    let mut agent = Agent::start();
    agent.drops(1..6);
    let ask =
        |last, since| seconds(Client::connect(&agent.path, &request(last, since, false)).unwrap());
    assert_eq!(ask(Some(2), None), [4, 5]);
    assert_eq!(ask(Some(10), None), [3, 4, 5], "three are kept");
    assert_eq!(ask(None, Some(4)), [4, 5]);
    assert_eq!(ask(Some(1), Some(4)), [5]);
    assert_eq!(ask(None, None), [] as [i64; 0]);
    let (drops, bytes) = agent.publisher.history();
    assert_eq!(drops, 3);
    assert!(bytes > 3 * 100, "{bytes}");
    assert_eq!(agent.publisher.readers(), 0);
}

#[test]
fn history_is_bounded_in_bytes() {
    let mut history = History::new(100, 10);
    for second in 0..5 {
        history.push(Timestamp::from_second(second).unwrap(), Arc::from("1234"));
    }
    assert_eq!(history.answer(&request(Some(100), None, false)).len(), 2);
}

#[test]
fn a_follower_gets_the_past_then_what_comes() {
    let mut agent = Agent::start();
    agent.drops(1..3);
    let mut client = Client::connect(&agent.path, &request(Some(1), None, true)).unwrap();
    assert_eq!(client.node(), "node-a");
    assert_eq!(client.state(), Some("the state is old"));
    assert_eq!(client.next().unwrap().unwrap().time.as_second(), 2);
    agent.drops(3..4);
    assert_eq!(client.next().unwrap().unwrap().time.as_second(), 3);
    drop(agent);
    assert!(client.next().is_none(), "the stream ends with the agent");
}

#[test]
fn a_slow_reader_is_cut_off_with_a_count_and_others_are_not() {
    let mut agent = Agent::start();
    let slow = Client::connect(&agent.path, &request(Some(0), None, true)).unwrap();
    let sent = 10_000;
    agent.drops(0..sent);
    let (mut read, mut missed) = (0, None);
    for drop in slow {
        match drop {
            Ok(_) => read += 1,
            Err(ClientError::CutOff(cut_off)) => missed = Some(cut_off.missed),
            Err(error) => panic!("{error}"),
        }
    }
    let missed = missed.expect("it was cut off");
    assert!(
        read > 0 && read + missed <= u64::try_from(sent).unwrap(),
        "{read} + {missed}"
    );
    let next = Client::connect(&agent.path, &request(Some(1), None, false)).unwrap();
    assert_eq!(seconds(next), [sent - 1]);
}

#[test]
fn who_drains_waits_until_everything_is_told() {
    let agent = Agent::start();
    agent.waiting[0].send_replace(1);
    let (sender, drained) = mpsc::channel();
    let path = agent.path.clone();
    let client = std::thread::spawn(move || {
        let rest = drain(&path).unwrap();
        sender.send(()).unwrap();
        rest
    });
    // What waited gives to the next.
    let a_moment = std::time::Duration::from_millis(50);
    assert!(drained.recv_timeout(a_moment).is_err());
    agent.waiting[1].send_replace(1);
    agent.waiting[0].send_replace(0);
    assert!(drained.recv_timeout(a_moment).is_err());
    agent.waiting[1].send_replace(0);
    assert_eq!(client.join().unwrap(), Rest { waiting: 0 });
}

#[test]
fn strangers_are_refused_with_a_reason() {
    let agent = Agent::start();
    let mut other = request(None, None, false);
    other.version = 99;
    let error = Client::connect(&agent.path, &other)
        .unwrap_err()
        .to_string();
    assert!(error.contains("version 1 of the stream, not 99"), "{error}");
    let error = Client::connect(&agent.path.with_file_name("none"), &other).unwrap_err();
    assert!(error.nobody_there(), "{error}");
}

#[tokio::test]
async fn a_dead_socket_is_replaced_a_living_one_and_a_file_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = Server::bind(&path, Access::default(), "a", History::default()).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(
        Server::bind(&path, Access::default(), "b", History::default()),
        Err(BindError::Taken(_))
    ));
    drop(first);
    std::fs::write(&path, "x").unwrap();
    assert!(matches!(
        Server::bind(&path, Access::default(), "c", History::default()),
        Err(BindError::NotASocket(_))
    ));
}
