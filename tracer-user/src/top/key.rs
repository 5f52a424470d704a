//! What a key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::table::Sort;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// So many lines down, or up.
    Move(isize),
    /// So many pages down, or up.
    Page(isize),
    /// To the first line.
    First,
    /// To the last.
    Last,
    /// Stack and evidence of what is chosen.
    Details,
    /// Out of what was opened last.
    Back,
    /// Another order.
    Sort(Sort),
    /// The next order.
    NextSort,
    /// The screen stays as it is, or goes on.
    Pause,
    /// A filter is written from now on.
    Filter,
    /// The report is written into files.
    Export,
    /// Who holds what is chosen.
    Holders,
    /// What the keys do.
    Help,
    /// The end.
    Quit,
}

/// A line of the help for each key.
pub const HELP: [(&str, &str); 13] = [
    ("↑ ↓  j k", "another line; PgUp, PgDn, Home and End, too"),
    (
        "Enter",
        "stack and evidence of the line; again or Esc: away",
    ),
    ("J K", "further down and up in these"),
    ("s", "the next order; or straight away:"),
    ("g l r a", "by growth, live bytes, rate of allocations, age"),
    ("/", "only what has these letters in its path; Esc: all"),
    ("space", "the screen stays as it is; again: it goes on"),
    ("e", "writes report (.json) and flamegraph (.svg) here"),
    (
        "h",
        "who holds the line's blocks: searched now, told in its details",
    ),
    ("?", "this"),
    ("q Ctrl-C", "the end: the probes go, the process goes on"),
    ("", ""),
    ("GROWTH/s", "of the last 10 s, or since the last report"),
];

/// What a key asks for, while no filter is written.
pub fn action(key: KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c' | 'd') => Some(Action::Quit),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Down | KeyCode::Char('j') => Action::Move(1),
        KeyCode::Up | KeyCode::Char('k') => Action::Move(-1),
        KeyCode::Char('J') => Action::Page(1),
        KeyCode::Char('K') => Action::Page(-1),
        KeyCode::PageDown => Action::Page(1),
        KeyCode::PageUp => Action::Page(-1),
        KeyCode::Home => Action::First,
        KeyCode::End => Action::Last,
        KeyCode::Enter => Action::Details,
        KeyCode::Esc => Action::Back,
        KeyCode::Char('s') => Action::NextSort,
        KeyCode::Char('g') => Action::Sort(Sort::Growth),
        KeyCode::Char('l') => Action::Sort(Sort::Live),
        KeyCode::Char('r') => Action::Sort(Sort::Rate),
        KeyCode::Char('a') => Action::Sort(Sort::Age),
        KeyCode::Char(' ' | 'p') => Action::Pause,
        KeyCode::Char('/') => Action::Filter,
        KeyCode::Char('e') => Action::Export,
        KeyCode::Char('h') => Action::Holders,
        KeyCode::Char('?') => Action::Help,
        _ => return None,
    })
}
