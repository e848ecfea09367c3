//! The children: started in order, kept alive, stopped in reverse order.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;

use super::DevArgs;
use super::child::Child;
use super::layout::{Layout, workers};

/// How long everything may take to serve.
const START: Duration = Duration::from_secs(60);
/// Between two looks at something that starts.
const LOOK: Duration = Duration::from_millis(50);
/// How long a child may take to stop.
const GRACE: Duration = Duration::from_secs(30);

/// The running children.
#[derive(Debug)]
pub struct Stack {
    children: Vec<Child>,
    api_url: String,
    api_key: String,
    logs: PathBuf,
    workers: usize,
}

impl Stack {
    /// Starts nats-server, then the rest.
    ///
    /// # Errors
    /// A program cannot be started, or nats-server does not serve.
    pub async fn start(args: &DevArgs, layout: &Layout) -> anyhow::Result<Self> {
        let logs = layout.path("logs");
        let log = |name: &str| logs.join(format!("{name}.log"));
        let config =
            |name: &str| vec!["--config".to_owned(), layout.path(name).display().to_string()];
        let mut nats = Child::start(
            "nats-server",
            layout.nats_server.clone(),
            config("nats.conf"),
            log("nats-server"),
        )?;
        serves_on(layout.ports.nats, &mut nats).await?;
        let us = std::env::current_exe().context("cannot find our own program")?;
        let role = |role: &[&str], file: String, name: String| {
            let mut words: Vec<String> = role.iter().map(ToString::to_string).collect();
            words.extend(config(&file));
            Child::start(name.clone(), us.clone(), words, log(&name))
        };
        let mut scheduler = role(&["scheduler"], "scheduler.toml".into(), "scheduler".into())?;
        // The scheduler sets up the queues that workers wait on.
        serves_on(layout.ports.api, &mut scheduler).await?;
        let mut children = vec![nats, scheduler];
        let workers = workers(args);
        for worker in &workers {
            let file = format!("worker-{}.toml", worker.name);
            children.push(role(&["worker", "run"], file, format!("worker-{}", worker.name))?);
        }
        Ok(Self {
            children,
            api_url: layout.api_url(),
            api_key: layout.api_key.clone(),
            logs,
            workers: workers.len(),
        })
    }

    /// Where the children's output lies.
    pub fn logs(&self) -> &std::path::Path {
        &self.logs
    }

    /// Returns true when the API serves and every worker has announced itself.
    ///
    /// # Errors
    /// It takes too long; the message shows the end of the logs.
    pub async fn ready(&mut self) -> anyhow::Result<bool> {
        let (url, key, wanted) = (self.api_url.clone(), self.api_key.clone(), self.workers);
        let client = reqwest::Client::new();
        let serves = async move {
            let url = format!("{url}/api/v1/workers");
            while live_workers(&client, &url, &key).await != Some(wanted) {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Cancel-safe: `supervise` is, and never ends by itself.
        let ready = tokio::select! {
            ready = tokio::time::timeout(START, serves) => ready,
            () = self.supervise() => return Ok(false),
        };
        if ready.is_err() {
            let tails: String = self.children.iter().map(tail).collect();
            bail!("the stack does not serve after {} s:\n{tails}", START.as_secs());
        }
        Ok(true)
    }

    /// Starts dead children again, for ever. Cancel-safe.
    pub async fn supervise(&mut self) {
        loop {
            let mut lives: FuturesUnordered<_> =
                self.children.iter_mut().map(Child::keep_alive).collect();
            if lives.next().await.is_none() {
                return;
            }
        }
    }

    /// Stops workers, then the scheduler, then nats-server.
    pub async fn stop(&mut self) {
        let (nats, rest) = self.children.split_at_mut(1);
        let (scheduler, workers) = rest.split_at_mut(1);
        for group in [workers, scheduler, nats] {
            group.iter().for_each(Child::terminate);
            let stopped: FuturesUnordered<_> =
                group.iter_mut().map(|child| child.stopped(GRACE)).collect();
            stopped.collect::<()>().await;
        }
    }
}

/// Waits until something listens on a port.
async fn serves_on(port: u16, child: &mut Child) -> anyhow::Result<()> {
    let listens = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    };
    // Cancel-safe: neither loses anything.
    tokio::select! {
        listening = tokio::time::timeout(START, listens) => {
            listening.with_context(|| format!("{} does not listen:\n{}", child.name, tail(child)))
        }
        status = child.died() => {
            let status = status?;
            bail!("{} ended ({status}):\n{}", child.name, tail(child))
        }
    }
}

async fn live_workers(client: &reqwest::Client, url: &str, key: &str) -> Option<usize> {
    let response = client.get(url).bearer_auth(key).send().await.ok()?;
    let workers: Vec<serde_json::Value> = response.json().await.ok()?;
    Some(workers.len())
}

/// The end of a child's log.
fn tail(child: &Child) -> String {
    let text = std::fs::read_to_string(child.log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(8)..].join("\n    ");
    format!("  {}:\n    {end}\n", child.name)
}
