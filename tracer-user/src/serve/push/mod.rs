//! Windows and findings on their way to others, on a thread that holds no rights and cannot
//! get any. Each destination has a queue on disk, and a task that nobody else waits for.

mod alert;
mod client;
mod otlp;
mod pyroscope;
mod sender;
mod window;

use std::sync::Arc;

use anyhow::{Context, Result};
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
    /// Those of a configuration.
    ///
    /// # Errors
    /// A token or a certificate cannot be read.
    pub fn of(config: &Config) -> Result<Self> {
        let mut all = Self::default();
        for push in &config.pushes {
            all.pushes.push(of_push(push)?);
        }
        for alert in &config.alerts {
            let client = Client::new(&alert.place, false)
                .with_context(|| format!("cannot send to {}", alert.place.url))?;
            let queue = Queue::new(alert.name(), alert.place.queue, false);
            all.alerts.push((alert.clone(), client, queue));
        }
        Ok(all)
    }

    /// Their queues.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        let pushes = self.pushes.iter().map(|(.., queue)| queue);
        let alerts = self.alerts.iter().map(|(.., queue)| queue);
        pushes.chain(alerts).cloned().collect()
    }

    /// Sends from now on, until the program ends; nothing if there is nobody. Returns once
    /// the thread has given up all rights.
    ///
    /// # Errors
    /// The kernel refuses that.
    pub fn start(self, status: Arc<Status>, store: Arc<Store>) -> Result<()> {
        if self.pushes.is_empty() && self.alerts.is_empty() {
            return Ok(());
        }
        powerless::start("push", "nothing is pushed any more", move || {
            self.send(&status, &store)
        })
    }

    fn send(self, status: &Status, store: &Arc<Store>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (protocol, client, queue) in self.pushes {
                let sender = Sender::new(client, Some(protocol), queue, Arc::clone(store));
                tasks.spawn(sender.run(status.subscribe(), None));
            }
            for (alert, client, queue) in self.alerts {
                let teller = Teller::new(&alert, Arc::clone(&queue), Arc::clone(store));
                let sender = Sender::new(client, None, queue, Arc::clone(store));
                tasks.spawn(sender.run(status.subscribe(), Some(teller)));
            }
            while let Some(ended) = tasks.join_next().await {
                ended.context("a task that pushes ended")?;
            }
            Ok(())
        })
    }
}

fn of_push(push: &Push) -> Result<(Protocol, Client, Arc<Queue>)> {
    let client = Client::new(&push.place, push.to == Protocol::OtlpGrpc)
        .with_context(|| format!("cannot push to {}", push.place.url))?;
    let queue = Queue::new(push.name(), push.place.queue, true);
    Ok((push.to, client, queue))
}
