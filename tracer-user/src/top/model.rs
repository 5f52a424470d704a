//! What is shown, and what keys do to it: no terminal is needed for that.

use std::sync::Arc;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::{History, keys};
use super::key::{Action, action};
use super::rows::{Found, Row, findings, rows, sort};
use crate::cli::table::Sort;
use crate::explain;
use crate::model::{Report, RowNumber, Site};
use crate::report::numbers::told;
use crate::report::text::{Layout, ROWS};
use crate::visible::clean;

/// Letters of a filter, at most.
const LONGEST_FILTER: usize = 100;
/// Sites whose holders are asked for at once, at most: a search is for no more.
const MAX_ASKED: usize = 64;

/// What is to be done that the model cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// What is shown is to be written into files.
    Export,
    /// Who holds the blocks of these sites, by their indices in the kernel, is to be searched for.
    Holders(Vec<u32>),
    /// The end.
    Quit,
}

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Picked {
    Finding(u64),
    Row(u64),
}

/// A line that is listed.
pub enum Item<'a> {
    /// A finding.
    Finding(&'a Found),
    /// A call path.
    Row(&'a Row),
}

/// All that is shown.
pub struct Model {
    /// What is watched.
    source: String,
    /// Whether a `serve` says what is known, and searches for who holds what when asked.
    is_of_serve: bool,
    /// The report that is shown.
    report: Option<Arc<Report>>,
    /// The newest, while another one is shown.
    newest: Option<Arc<Report>>,
    history: History,
    /// As they are shown: those that the filter lets through, in order.
    findings: Vec<Found>,
    rows: Vec<Row>,
    sort: Sort,
    filter: String,
    /// The filter that is being written.
    draft: Option<String>,
    is_paused: bool,
    has_details: bool,
    has_help: bool,
    /// Lines of the details that are above the screen.
    scroll: usize,
    picked: Option<Picked>,
    /// Where what is picked is or was.
    position: usize,
    said: String,
    ended: Option<String>,
}

impl Model {
    /// Nothing is known yet of what is watched.
    pub fn new(source: &str) -> Self {
        Self {
            source: clean(source).into_owned(),
            is_of_serve: false,
            report: None,
            newest: None,
            history: History::default(),
            findings: Vec::new(),
            rows: Vec::new(),
            sort: Sort::default(),
            filter: String::new(),
            draft: None,
            is_paused: false,
            has_details: false,
            has_help: false,
            scroll: 0,
            picked: None,
            position: 0,
            said: String::new(),
            ended: None,
        }
    }

    /// What a `serve` knows is shown.
    pub fn of_service(name: &str) -> Self {
        Self {
            is_of_serve: true,
            ..Self::new(&format!("service {name}"))
        }
    }

    /// There is a new report. While the screen is paused it is only remembered.
    pub fn take(&mut self, report: Arc<Report>) {
        self.history.enter(&report, &keys(&report));
        self.newest = Some(report);
        if !self.is_paused {
            self.show_newest();
        }
    }

    /// Something is to be said in the last line, until a key is pressed.
    pub fn say(&mut self, text: &str) {
        self.said = clean(text).into_owned();
    }

    /// There are no more reports, for this reason.
    pub fn end(&mut self, why: &str) {
        self.ended = Some(clean(why).into_owned());
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Effect {
        self.said.clear();
        if let Some(draft) = self.draft.take() {
            return self.write(draft, key);
        }
        let Some(action) = action(key) else {
            return Effect::None;
        };
        if self.has_help && action != Action::Quit {
            self.has_help = false;
            return Effect::None;
        }
        match action {
            Action::Quit => return Effect::Quit,
            Action::Export if self.report.is_some() => return Effect::Export,
            Action::Export => self.say("there is no report yet"),
            Action::Move(lines) => self.go(self.position.saturating_add_signed(lines)),
            Action::First => self.go(0),
            Action::Last => self.go(usize::MAX),
            Action::Page(pages) if self.has_details => {
                self.scroll = self.scroll.saturating_add_signed(pages * 5);
            }
            Action::Page(pages) => self.go(self.position.saturating_add_signed(pages * 10)),
            Action::Details => self.has_details = !self.has_details,
            Action::Back => self.back(),
            Action::Sort(by) => self.sort_by(by),
            Action::NextSort => self.sort_by(next(self.sort)),
            Action::Pause => self.pause(),
            Action::Filter => self.draft = Some(self.filter.clone()),
            Action::Holders => return self.ask_for_holders(),
            Action::Help => self.has_help = true,
        }
        Effect::None
    }

    /// The filter is being written; it takes effect with each letter.
    fn write(&mut self, mut draft: String, key: KeyEvent) -> Effect {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Effect::Quit,
                _ => self.keep(draft),
            };
        }
        match key.code {
            KeyCode::Enter => {
                self.filter_by(draft);
                return Effect::None;
            }
            KeyCode::Esc => {
                self.filter_by(String::new());
                return Effect::None;
            }
            KeyCode::Backspace => drop(draft.pop()),
            KeyCode::Char(letter) if draft.chars().count() < LONGEST_FILTER => draft.push(letter),
            _ => {}
        }
        self.keep(draft)
    }

    fn keep(&mut self, draft: String) -> Effect {
        self.filter_by(draft.clone());
        self.draft = Some(draft);
        Effect::None
    }

    fn filter_by(&mut self, filter: String) {
        self.filter = filter;
        self.list();
    }

    fn sort_by(&mut self, by: Sort) {
        self.sort = by;
        self.list();
    }

    fn pause(&mut self) {
        self.is_paused = !self.is_paused;
        if !self.is_paused {
            self.show_newest();
        }
    }

    fn back(&mut self) {
        if self.has_details {
            self.has_details = false;
        } else {
            self.filter_by(String::new());
        }
    }

    fn show_newest(&mut self) {
        self.report.clone_from(&self.newest);
        self.list();
    }

    /// Lists what is to be shown of the report. What is picked stays picked, wherever it goes.
    fn list(&mut self) {
        let Some(report) = &self.report else {
            return;
        };
        let filter = self.filter.to_lowercase();
        self.findings = findings(report);
        self.findings.retain(|found| found.has(&filter));
        self.rows = rows(report, &keys(report), &self.history);
        self.rows.retain(|row| row.has(&filter));
        sort(&mut self.rows, self.sort);
        let place = self.picked.and_then(|picked| match picked {
            Picked::Finding(key) => self.findings.iter().position(|it| it.key == key),
            Picked::Row(key) => {
                let place = self.rows.iter().position(|it| it.key == key);
                place.map(|place| place + self.findings.len())
            }
        });
        match place {
            Some(place) => self.position = place,
            None => self.go(self.position),
        }
    }

    /// Picks the line there, or the last one.
    fn go(&mut self, position: usize) {
        let last = (self.findings.len() + self.rows.len()).saturating_sub(1);
        let position = position.min(last);
        if position != self.position {
            self.scroll = 0;
        }
        self.position = position;
        self.picked = match self.item() {
            Some(Item::Finding(found)) => Some(Picked::Finding(found.key)),
            Some(Item::Row(row)) => Some(Picked::Row(row.key)),
            None => None,
        };
    }

    /// The line that is picked.
    pub fn item(&self) -> Option<Item<'_>> {
        match self.findings.get(self.position) {
            Some(found) => Some(Item::Finding(found)),
            None => {
                let row = self.rows.get(self.position - self.findings.len());
                row.map(Item::Row)
            }
        }
    }

    /// Stack and evidence of what is picked, so many columns wide: all lines.
    pub fn details(&self, width: usize) -> Vec<String> {
        let number = match self.item() {
            Some(Item::Finding(found)) => Some(RowNumber::whole(found.number)),
            Some(Item::Row(row)) => row.number,
            None => None,
        };
        let (Some(report), Some(number)) = (&self.report, number) else {
            return Vec::new();
        };
        let layout = Layout::new(ROWS, Some(width), false);
        let text = explain::render(report, number, &layout);
        let text = text.unwrap_or_else(|error| format!("{error:#}"));
        text.lines().map(str::to_owned).collect()
    }

    /// Who holds what is picked is to be searched for, and told in its details.
    fn ask_for_holders(&mut self) -> Effect {
        if self.ended.is_some() {
            self.say("the run has ended: nothing is searched any more");
            return Effect::None;
        }
        if self.is_of_serve {
            self.say("asking the serve to search the service's memory…");
            return Effect::Holders(Vec::new());
        }
        let sites = self.picked_sites();
        let indices = sites.iter().flat_map(|site| &site.indices).copied();
        let indices: Vec<u32> = indices.take(MAX_ASKED).collect();
        if indices.is_empty() {
            let is_traced = self.report.as_ref().is_some_and(|it| {
                let mut sites = it.sites.iter();
                sites.any(|site| !site.indices.is_empty())
            });
            self.say(match is_traced {
                true => "who holds it is searched for blocks of a heap alone",
                false => "who holds what is searched where `top -p` follows allocations",
            });
            return Effect::None;
        }
        self.has_details = true;
        self.say("searching the process's memory for who holds it…");
        Effect::Holders(indices)
    }

    /// The call paths of what is picked.
    fn picked_sites(&self) -> Vec<&Site> {
        let (Some(report), Some(item)) = (&self.report, self.item()) else {
            return Vec::new();
        };
        match item {
            Item::Finding(found) => {
                let finding = told(report).nth(found.number - 1);
                let ids = finding.map(|it| &it.sites[..]).unwrap_or_default();
                let sites = report.sites.iter();
                sites.filter(|site| ids.contains(&site.id)).collect()
            }
            Item::Row(row) => {
                let keys = keys(report);
                let sites = report.sites.iter().zip(&keys);
                let of_row = sites.filter(|(_, key)| **key == row.key);
                of_row.map(|(site, _)| site).collect()
            }
        }
    }

    /// What is watched.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The report that is shown.
    pub fn report(&self) -> Option<&Arc<Report>> {
        self.report.as_ref()
    }

    /// The findings that are shown.
    pub fn findings(&self) -> &[Found] {
        &self.findings
    }

    /// The call paths that are shown, in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Which line is picked: findings come first.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// The order of the call paths.
    pub const fn order(&self) -> Sort {
        self.sort
    }

    /// The filter, and whether it is being written.
    pub fn filter(&self) -> (&str, bool) {
        (&self.filter, self.draft.is_some())
    }

    /// Whether the screen stays as it is.
    pub const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// How many lines of the details are above the screen, if there are details.
    pub fn scroll(&self) -> Option<usize> {
        self.has_details.then_some(self.scroll)
    }

    /// Whether the help is shown.
    pub const fn has_help(&self) -> bool {
        self.has_help
    }

    /// What is said in the last line.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Why there are no more reports, if so.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }
}

/// The next order.
const fn next(sort: Sort) -> Sort {
    match sort {
        Sort::Growth => Sort::Live,
        Sort::Live => Sort::Rate,
        Sort::Rate => Sort::Age,
        Sort::Age => Sort::Growth,
    }
}
