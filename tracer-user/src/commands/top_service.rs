//! `unfreed top --service`: what a running `serve` knows of a service, live.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::record::{End, runtime};
use super::top::code_of;
use crate::cli::top::TopArgs;
use crate::privilege::capability::Phase;
use crate::serve::client::Client;
use crate::session::stop::Signals;
use crate::top::Model;
use crate::top::feed::Feed;
use crate::top::screen::Screen;

/// The `serve` is asked this often.
const EACH: Duration = Duration::from_secs(1);
/// The same for whether a key was pressed that asks for something.
const BEAT: Duration = Duration::from_millis(100);

/// Said when a search is wanted, until it has ended.
const WAITING: &str =
    "who holds what is searched for, as soon as the searches before are paid for…";
/// Said when it has.
const SEARCHED: &str =
    "searched: shown is what the closer look has seen, and the details (Enter) say who holds it";
/// Said when the look has ended before.
const TOO_LATE: &str = "the closer look has ended before it was searched";

/// Shows what is known of a service until somebody quits.
///
/// # Errors
/// Nobody answers, or there is no terminal.
pub fn run(args: &TopArgs, service: &str) -> Result<ExitCode> {
    Phase::Reporting.start()?;
    let client = args.server.client()?;
    let ended = client.services()?.ended;
    let feed = Arc::new(Feed::default());
    feed.put(client.report(service, false)?);
    let asking = Asking {
        client,
        service: service.to_owned(),
        shown: ended,
        wanted: None,
        is_look: false,
        feed: Arc::clone(&feed),
    };
    runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let model = Model::of_service(service);
        let screen = Screen::open(Arc::clone(&feed), model, signals.ender())?;
        asking.start()?;
        let number = signals.next().await;
        screen.close()?;
        Ok(code_of(End::Signal(number)))
    })
}

/// Asks for what is new.
struct Asking {
    client: Client,
    service: String,
    /// The end of the window that is shown.
    shown: u64,
    /// A search that is wanted: how many had ended when it was.
    wanted: Option<u64>,
    /// Whether what the closer look has seen is shown.
    is_look: bool,
    feed: Arc<Feed>,
}

impl Asking {
    /// On a thread of its own, until the screen is closed.
    fn start(mut self) -> Result<()> {
        let thread = std::thread::Builder::new().name("asking".to_owned());
        let ask = move || {
            while !self.feed.is_closed() {
                let beats = EACH.as_millis() / BEAT.as_millis();
                let is_asked = (0..beats).any(|_| {
                    sleep(BEAT);
                    self.feed.is_asked()
                });
                if let Err(error) = self.step(is_asked) {
                    self.wanted = None;
                    self.feed.say(format!("{error:#}"));
                }
            }
        };
        thread
            .spawn(ask)
            .context("cannot start the thread that asks")?;
        Ok(())
    }

    fn step(&mut self, is_asked: bool) -> Result<()> {
        if is_asked {
            self.wanted = Some(self.client.search(&self.service)?);
            self.feed.say(WAITING.to_owned());
        }
        if let Some(before) = self.wanted {
            return self.wait(before);
        }
        let ended = self.client.services()?.ended;
        if ended != self.shown {
            self.show()?;
            self.shown = ended;
        }
        Ok(())
    }

    /// Shows what was found, once it was.
    fn wait(&mut self, before: u64) -> Result<()> {
        let (searches, goes_on) = self.client.searches(&self.service)?;
        let said = match (searches > before, goes_on) {
            (true, _) => SEARCHED,
            (false, false) => TOO_LATE,
            (false, true) => return Ok(()),
        };
        self.wanted = None;
        self.is_look |= searches > before;
        self.show()?;
        self.feed.say(said.to_owned());
        Ok(())
    }

    fn show(&self) -> Result<()> {
        let report = self.client.report(&self.service, self.is_look)?;
        self.feed.put(report);
        Ok(())
    }
}
