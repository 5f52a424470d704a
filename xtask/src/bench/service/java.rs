//! The Java server of the part `java`.

use std::time::Duration;

use anyhow::Result;

use super::{Launch, Load, Service, wrk};
use crate::bench::server::Server;

pub(super) struct Java(Server);

impl Java {
    pub(super) fn start(launch: &Launch<'_>) -> Result<Self> {
        crate::java::build()?;
        Ok(Self(Server::start_by(launch)?))
    }

    fn page(&self) -> String {
        format!("http://127.0.0.1:{}/some/page", self.0.port())
    }
}

impl Service for Java {
    fn pid(&self) -> String {
        self.0.pid().to_owned()
    }

    fn root(&self) -> String {
        self.0.root()
    }

    /// Until it is compiled.
    fn warm_up(&self) -> Duration {
        Duration::from_secs(6)
    }

    fn load(&mut self, time: Duration) -> Result<Load> {
        wrk::load(&self.page(), time)
    }

    fn steady_load(&mut self, time: Duration, rate: f64) -> Result<Load> {
        wrk::steady_load(&self.page(), time, rate)
    }
}
