//! Stand-ins for what listens in the cluster: API server, Vault, CoreDNS. Real sockets inside the
//! right namespaces, few manners.

mod dns;
mod tls;
mod web;

use std::io::{PipeReader, PipeWriter, pipe};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};

use crate::netns::Netns;
use crate::network::Network;
use crate::plan::API_PORT;
use crate::traffic::HttpsClient;
use tls::Authority;

/// A line of a stand-in's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Who logged it: `kube-apiserver`, or `namespace/pod`.
    pub source: String,
    /// The text, worded as Go's `net/http` does.
    pub text: String,
}

/// Where stand-ins log to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<LogLine>>>);

impl Log {
    pub(crate) fn line(&self, source: &str, text: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(LogLine {
            source: source.to_owned(),
            text,
        });
    }
}

/// Every server of a lab.
#[derive(Debug)]
pub(crate) struct Servers {
    authority: Authority,
    log: Log,
    // Closing the writer is what every accept loop waits for.
    stop: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    pub(crate) fn none() -> Result<Self> {
        Ok(Self {
            authority: Authority::new()?,
            log: Log::default(),
            stop: None,
            threads: Vec::new(),
        })
    }

    pub(crate) fn start(network: &Network) -> Result<Self> {
        let (stopped, stop) = pipe().context("cannot make a pipe")?;
        let stopped = Arc::new(stopped);
        let authority = Authority::new()?;
        let log = Log::default();
        let mut threads = Vec::new();
        let mut serve = |name: &str, body: Box<dyn FnOnce() + Send>| -> Result<()> {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
            threads.push(thread.context("cannot start a thread")?);
            Ok(())
        };

        let mut web = |netns: &Netns, name: &str, port: u16, pages: web::Pages| -> Result<()> {
            let server = web::Server {
                name: name.to_owned(),
                listener: listen(netns, port)?,
                tls: authority.server_config(),
                pages,
                log: log.clone(),
            };
            let stopped = Arc::clone(&stopped);
            serve(name, Box::new(move || server.run(&stopped)))
        };
        web(&network.master, "kube-apiserver", API_PORT, web::api_server)?;
        for pod in &network.pods {
            for (_, port, _) in pod.plan().ports {
                // CoreDNS follows below.
                if *port != 53 {
                    web(pod.netns(), &pod.id(), *port, web::vault)?;
                }
            }
        }
        if let Some(pod) = network
            .pods
            .iter()
            .find(|pod| pod.plan().container == "coredns")
        {
            let udp = pod
                .netns()
                .enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53)))?;
            let udp = udp.with_context(|| format!("cannot bind UDP 53 in {}", pod.id()))?;
            let tcp = listen(pod.netns(), 53)?;
            let (udp_stop, tcp_stop) = (Arc::clone(&stopped), Arc::clone(&stopped));
            serve("dns", Box::new(move || dns::serve_udp(&udp, &udp_stop)))?;
            serve("dns-tcp", Box::new(move || dns::serve_tcp(&tcp, &tcp_stop)))?;
        }
        Ok(Self {
            authority,
            log,
            stop: Some(stop),
            threads,
        })
    }

    pub(crate) fn logs(&self) -> Vec<LogLine> {
        let lines = self.log.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }

    pub(crate) fn client(&self) -> HttpsClient {
        self.authority.client()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Listens on every address of both families.
fn listen(netns: &Netns, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    netns
        .enter(|| TcpListener::bind(address))?
        .with_context(|| format!("cannot listen on port {port} in {}", netns.name()))
}

/// Waits until `socket` can be read, or the servers are to stop: then `false`.
fn readable(socket: &impl std::os::fd::AsFd, stopped: &PipeReader) -> bool {
    loop {
        let mut fds = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) if !fds[1].revents().is_empty() => return false,
            Ok(_) => return true,
        }
    }
}
