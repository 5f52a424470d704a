//! Windows and findings on their way to others, on a thread that holds no rights and cannot
//! get any. Each destination has a queue on disk, and a task that nobody else waits for.

mod alert;
mod client;
mod otlp;
mod pyroscope;
mod sender;
mod window;

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::alert::Teller;
use self::client::Client;
use self::sender::Sender;
use super::config::{Alert, Config, Protocol, Push};
use super::powerless;
use super::status::Status;
use super::store::Store;
use super::store::outbox::Queue;

/// Whom is sent what, with everything of it that takes rights: tokens and certificates are
/// read.
#[derive(Debug, Default)]
pub struct Destinations {
    pushes: Vec<(Protocol, Client, Arc<Queue>)>,
    alerts: Vec<(Alert, Client, Arc<Queue>)>,
}

impl Destinations {
    /// Those of a configuration; what went to one of `before` is counted on.
    ///
    /// # Errors
    /// A token or a certificate cannot be read.
    pub fn of(config: &Config, before: &[Arc<Queue>]) -> Result<Self> {
        let mut all = Self::default();
        for push in &config.pushes {
            all.pushes.push(of_push(push, before)?);
        }
        for alert in &config.alerts {
            let client = Client::new(&alert.place, false)
                .with_context(|| format!("cannot send to {}", alert.place.url))?;
            let queue = Queue::after(before, alert.name(), alert.place.queue, false);
            all.alerts.push((alert.clone(), client, queue));
        }
        Ok(all)
    }

    fn is_empty(&self) -> bool {
        self.pushes.is_empty() && self.alerts.is_empty()
    }

    /// Their queues.
    fn queues(&self) -> Vec<Arc<Queue>> {
        let pushes = self.pushes.iter().map(|(.., queue)| queue);
        let alerts = self.alerts.iter().map(|(.., queue)| queue);
        pushes.chain(alerts).cloned().collect()
    }

    /// A task for each, until `over` is closed.
    fn spawn(self, status: &Status, store: &Arc<Store>, over: &watch::Receiver<()>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (protocol, client, queue) in self.pushes {
            let sender = Sender::new(client, Some(protocol), queue, Arc::clone(store));
            tasks.spawn(sender.run(status.subscribe(), None, over.clone()));
        }
        for (alert, client, queue) in self.alerts {
            let teller = Teller::new(&alert, Arc::clone(&queue), Arc::clone(store));
            let sender = Sender::new(client, None, queue, Arc::clone(store));
            tasks.spawn(sender.run(status.subscribe(), Some(teller), over.clone()));
        }
        tasks
    }
}

/// What is sent to whom, which may change while the program runs.
#[derive(Debug)]
pub struct Pushing {
    status: Arc<Status>,
    store: Arc<Store>,
    /// To the thread that sends, once there was somebody to send to.
    thread: Option<UnboundedSender<Destinations>>,
}

impl Pushing {
    /// Nobody is sent anything yet.
    pub const fn new(status: Arc<Status>, store: Arc<Store>) -> Self {
        Self {
            status,
            store,
            thread: None,
        }
    }

    /// These are sent to from now on, and others not any more: what waits for those goes. What is
    /// on its way has as long as its destination has for an answer.
    ///
    /// # Errors
    /// The queues cannot be written, and all stays as it was; or there is no thread without
    /// rights.
    pub fn change(&mut self, destinations: Destinations) -> Result<()> {
        self.store.set_queues(destinations.queues())?;
        if let Some(thread) = &self.thread {
            let sent = thread.send(destinations);
            return sent.map_err(|_| anyhow!("nothing is pushed any more"));
        }
        if destinations.is_empty() {
            return Ok(());
        }
        let (tell, changes) = unbounded_channel();
        let (status, store) = (Arc::clone(&self.status), Arc::clone(&self.store));
        powerless::start("push", "nothing is pushed any more", move || {
            send(destinations, changes, &status, &store)
        })?;
        self.thread = Some(tell);
        Ok(())
    }
}

/// Sends until nobody can change to whom.
fn send(
    mut destinations: Destinations,
    mut changes: UnboundedReceiver<Destinations>,
    status: &Status,
    store: &Arc<Store>,
) -> Result<()> {
    const ENDED: &str = "a task that pushes ended";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        loop {
            let (go_on, over) = watch::channel(());
            let mut tasks = destinations.spawn(status, store, &over);
            let changed = loop {
                tokio::select! {
                    changed = changes.recv() => break changed,
                    Some(ended) = tasks.join_next() => ended.context(ENDED)?,
                }
            };
            // No two tasks take from one queue.
            drop(go_on);
            while let Some(ended) = tasks.join_next().await {
                ended.context(ENDED)?;
            }
            let Some(next) = changed else {
                return Ok(());
            };
            destinations = next;
        }
    })
}

fn of_push(push: &Push, before: &[Arc<Queue>]) -> Result<(Protocol, Client, Arc<Queue>)> {
    let client = Client::new(&push.place, push.to == Protocol::OtlpGrpc)
        .with_context(|| format!("cannot push to {}", push.place.url))?;
    let queue = Queue::after(before, push.name(), push.place.queue, true);
    Ok((push.to, client, queue))
}
