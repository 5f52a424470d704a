//! The terminal, on a thread of its own: a terminal may be slow, or stand still, while tracing
//! goes on. However it ends, the terminal is given back as it was.

use std::io::{IsTerminal, Stdout, stdin, stdout};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{Event, KeyEventKind, poll, read};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::draw::draw;
use super::export::export;
use super::feed::Feed;
use super::messages::Messages;
use super::model::{Effect, Model};
use crate::privilege::capability::Phase;
use crate::session::stop::Ender;

/// News are looked for this often.
const BEAT: Duration = Duration::from_millis(100);
/// A terminal that stands still is left after this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the terminal is ours at the moment.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// The screen, from its opening to its end.
pub struct Screen {
    feed: Arc<Feed>,
    thread: Option<JoinHandle<Result<()>>>,
    /// Given back after the terminal.
    _messages: Messages,
}

/// Whether there is a terminal to show anything on.
///
/// # Errors
/// Says what does without one.
pub fn check() -> Result<()> {
    ensure!(
        stdout().is_terminal() && stdin().is_terminal(),
        "top needs a terminal, and standard input or output is none: `unfreed record --interval 10s` prints tables, and `unfreed attach` what a running `serve` knows"
    );
    Ok(())
}

impl Screen {
    /// Shows a model of what `feed` tells, until somebody quits, which `ender` is told, or
    /// until this value goes.
    ///
    /// # Errors
    /// The terminal will not have it.
    pub fn open(feed: Arc<Feed>, model: Model, ender: Ender) -> Result<Self> {
        let messages = Messages::hold_back(Arc::clone(&feed))?;
        let terminal = Ours::take()?;
        let told = Arc::clone(&feed);
        let thread = std::thread::Builder::new()
            .name("screen".to_owned())
            .spawn(move || {
                let _ends = Ends(ender);
                Phase::Reporting.start()?;
                show(terminal, model, &told)
            })
            .context("cannot start the screen's thread")?;
        Ok(Self {
            feed,
            thread: Some(thread),
            _messages: messages,
        })
    }

    /// Takes the screen away.
    ///
    /// # Errors
    /// It could not be shown any more.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.feed.close();
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let begin = Instant::now();
        while !thread.is_finished() && begin.elapsed() < PATIENCE {
            sleep(BEAT / 10);
        }
        if !thread.is_finished() {
            // It stands in a write. Modes can be given back all the same.
            let _gone = disable_raw_mode();
            return Ok(());
        }
        thread
            .join()
            .map_err(|_| anyhow!("the screen's thread panicked"))?
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Who did not close it has another failure to tell of.
        let _failure = self.end();
    }
}

/// Tells the others when the screen has ended, whatever ended it.
struct Ends(Ender);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The terminal while it is ours.
struct Ours(Terminal<CrosstermBackend<Stdout>>);

impl Ours {
    fn take() -> Result<Self> {
        let cannot = "the terminal will not be drawn on";
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        IS_OURS.store(true, Ordering::Release);
        let taken = enable_raw_mode()
            .and_then(|()| execute!(stdout(), EnterAlternateScreen, Hide))
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match taken {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                give_back();
                Err(error).context(cannot)
            }
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back as it was, once.
fn give_back() {
    if IS_OURS.swap(false, Ordering::AcqRel) {
        // One that is gone needs nothing back.
        let _gone = disable_raw_mode();
        let _gone = execute!(stdout(), LeaveAlternateScreen, Show);
    }
}

/// Draws what is new, and does what keys ask for.
fn show(mut terminal: Ours, mut model: Model, feed: &Feed) -> Result<()> {
    loop {
        terminal.0.draw(|frame| draw(frame, &model))?;
        let mut is_new = false;
        while !is_new {
            if poll(BEAT)? {
                match pressed(&mut model)? {
                    Some(Effect::Quit) => return Ok(()),
                    Some(Effect::Export) => write(&mut model),
                    Some(Effect::Holders(sites)) => feed.ask(sites),
                    Some(Effect::None) => {}
                    None => continue,
                }
                is_new = true;
            }
            let news = feed.take();
            if news.is_closed {
                return Ok(());
            }
            is_new |= news.report.is_some() || news.said.is_some() || news.ended.is_some();
            if let Some(report) = news.report {
                model.take(report);
            }
            if let Some(text) = news.said {
                model.say(&text);
            }
            if let Some(why) = news.ended {
                model.end(&why);
            }
        }
    }
}

/// What a key asks for; `None` if it was none, and the screen is as it was.
fn pressed(model: &mut Model) -> Result<Option<Effect>> {
    Ok(match read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(model.press(key)),
        Event::Resize(..) => Some(Effect::None),
        _ => None,
    })
}

fn write(model: &mut Model) {
    let Some(report) = model.report() else {
        return;
    };
    match export(report, model.source(), SystemTime::now()) {
        Ok(names) => model.say(&format!("written: {names}")),
        Err(error) => model.say(&format!("not written: {error:#}")),
    }
}
