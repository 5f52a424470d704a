//! How it looks.

mod columns;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use self::columns::Columns;
use super::key::HELP;
use super::model::Model;
use super::rows::Found;
use crate::cli::table::Sort;
use crate::model::{FindingKind, Report};
use crate::report::hidden::no_leak_seen;
use crate::report::units;
use crate::report::words::Words;

/// Lines below which details take the place of the list.
const ROOM_FOR_BOTH: u16 = 18;
/// Lines of findings at least, where there are so many, and the part of the screen that they
/// have at most.
const FINDINGS: (u16, u16) = (2, 4);

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let body = area.height.saturating_sub(3);
    let (found, details) = shares(model, body);
    let [head, totals, findings, table, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(found),
        Constraint::Min(0),
        Constraint::Length(details),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(title(model), head);
    frame.render_widget(Paragraph::new(sums(model)), totals);
    draw_findings(frame, model, findings);
    draw_rows(frame, model, table);
    draw_details(frame, model, below);
    frame.render_widget(last_line(model, foot.width), foot);
    if model.has_help() {
        draw_help(frame, area);
    }
}

/// How many lines findings and details get of so many.
fn shares(model: &Model, lines: u16) -> (u16, u16) {
    let wanted = u16::try_from(model.findings().len().max(1)).unwrap_or(u16::MAX);
    let found = wanted.min((lines / FINDINGS.1).max(FINDINGS.0));
    match model.scroll() {
        None => (found.min(lines), 0),
        Some(_) if lines < ROOM_FOR_BOTH => (0, lines),
        Some(_) => (found, (lines - found) * 3 / 5),
    }
}

fn title(model: &Model) -> Line<'_> {
    let state = match (model.ended(), model.is_paused()) {
        (Some(_), _) => "ENDED",
        (None, true) => "PAUSED",
        (None, false) => "LIVE",
    };
    let time = model.report().map_or(0.0, |report| report.duration);
    let mut title = Line::from(vec![
        Span::styled("unfreed top  ", Style::new().bold()),
        Span::raw(model.source()),
        Span::styled(format!("  {state}"), Style::new().bold()),
        Span::raw(format!(" {}", units::seconds(time))),
        Span::raw(format!("  by {}", name(model.order()))),
    ]);
    if let (filter, false) = model.filter()
        && !filter.is_empty()
    {
        title.push_span(Span::raw(format!("  /{filter}")));
    }
    title
}

const fn name(sort: Sort) -> &'static str {
    match sort {
        Sort::Growth => "growth",
        Sort::Live => "live",
        Sort::Rate => "rate",
        Sort::Age => "age",
    }
}

/// The totals of the report, the most important first: a narrow screen has only these.
fn sums(model: &Model) -> String {
    let Some(report) = model.report() else {
        return "the first report is being made".to_owned();
    };
    let words = Words::of(report);
    let lost = report.lost_events();
    let mark = if lost > 0 || report.sampling.is_some() {
        "~"
    } else {
        ""
    };
    let totals = &report.totals;
    let mut sums = vec![format!(
        "{mark}{} {} in {mark}{}",
        units::bytes(totals.live_bytes),
        words.live,
        units::counted(totals.live_count, words.unit)
    )];
    sums.extend(resident(report));
    if lost > 0 {
        sums.push(format!("{} lost", units::counted(lost, "event")));
    }
    if let Some(rate) = rate(report) {
        sums.push(format!(
            "{mark}{}/s {}",
            units::bytes_per_second(rate),
            words.came
        ));
    }
    sums.join(" · ")
}

/// How much the resident set has grown since the start.
fn resident(report: &Report) -> Option<String> {
    let growths = report.balance.iter().map(|balance| balance.growth);
    let growth = growths.reduce(|one, other| one.saturating_add(other))?;
    let sign = if growth < 0 { "-" } else { "+" };
    let size = units::bytes(growth.unsigned_abs());
    Some(format!("{sign}{size} resident"))
}

/// Bytes that are allocated a second, since the report before.
fn rate(report: &Report) -> Option<f64> {
    let window = report.window.as_ref()?;
    let seconds = window.ended - window.began;
    (seconds > 0.0).then(|| window.sums.allocated_bytes as f64 / seconds)
}

fn draw_findings(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let found = model.findings();
    if found.is_empty() {
        let nothing = match (model.report(), model.filter().0) {
            (None, _) => String::new(),
            (Some(report), "") => format!("{} until now.", no_leak_seen(report)),
            (Some(_), _) => "No finding has these letters.".to_owned(),
        };
        return frame.render_widget(
            Paragraph::new(nothing).wrap(Wrap { trim: true }).dim(),
            area,
        );
    }
    let lines = usize::from(area.height);
    let from = first_line(model.position(), lines, found.len());
    let shown = found.iter().enumerate().skip(from).take(lines);
    let lines: Vec<Line<'_>> = shown
        .map(|(index, it)| finding(it, index == model.position()))
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn finding(found: &Found, is_picked: bool) -> Line<'_> {
    let style = match found.kind {
        FindingKind::Leak => Style::new().fg(Color::Yellow).bold(),
        kind if kind.is_growth() => Style::new().bold(),
        _ => Style::new(),
    };
    let forecast = found.forecast.as_ref().map_or(String::new(), |it| {
        format!("; {} is full in {}", it.1, units::seconds(it.0))
    });
    let line = Line::from(vec![
        Span::styled(
            format!(
                "{}. {} {:.0} % ",
                found.number,
                found.kind.text(),
                found.sure
            ),
            style,
        ),
        Span::raw(found.title.as_str()),
        Span::raw(forecast),
    ]);
    marked(line, is_picked)
}

fn marked(line: Line<'_>, is_picked: bool) -> Line<'_> {
    match is_picked {
        true => line.style(Style::new().reversed()),
        false => line,
    }
}

fn draw_rows(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let Some(lines) = usize::from(area.height).checked_sub(1) else {
        return;
    };
    let columns = Columns::of(area.width);
    let found = model.findings().len();
    let picked = model.position().checked_sub(found);
    let rows = model.rows();
    let from = first_line(picked.unwrap_or(0), lines, rows.len());
    let shown = rows.iter().enumerate().skip(from).take(lines);
    let mut lines = vec![Line::from(columns.head()).bold()];
    lines.extend(shown.map(|(index, row)| marked(columns.row(row), picked == Some(index))));
    frame.render_widget(Paragraph::new(lines), area);
}

/// The first line of a list that is shown, so that what is picked is in the middle.
fn first_line(picked: usize, lines: usize, all: usize) -> usize {
    let middle = picked.saturating_sub(lines / 2);
    middle.min(all.saturating_sub(lines))
}

fn draw_details(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let Some(scroll) = model.scroll().filter(|_| area.height > 1) else {
        return;
    };
    let block = Block::new()
        .borders(ratatui::widgets::Borders::TOP)
        .title("stack and evidence");
    let inner = block.inner(area);
    let text = model.details(usize::from(inner.width));
    let lines = usize::from(inner.height);
    let from = scroll.min(text.len().saturating_sub(lines));
    let shown = text.into_iter().skip(from).take(lines);
    let shown: Vec<Line<'_>> = shown.map(Line::from).collect();
    frame.render_widget(block, area);
    frame.render_widget(Paragraph::new(shown), inner);
}

/// A message, the filter that is being written, or the keys.
fn last_line(model: &Model, width: u16) -> Line<'_> {
    if let (filter, true) = model.filter() {
        return Line::from(format!("/{filter}█  Enter keeps it, Esc shows all"));
    }
    if !model.said().is_empty() {
        return Line::from(model.said()).bold();
    }
    if let Some(why) = model.ended() {
        return Line::from(format!("{why}; q ends, e exports")).bold();
    }
    let keys = match width {
        80.. => "↑↓ choose  Enter details  s sort  / filter  space pause  e export  ? help  q end",
        _ => "Enter details  s / e ? help  q end",
    };
    Line::from(keys).dim()
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let height = u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX);
    let (width, height) = (area.width.min(68), area.height.min(height));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let lines = HELP.map(|(keys, what)| {
        Line::from(vec![
            Span::styled(format!("{keys:<9} "), Style::new().bold()),
            Span::raw(what),
        ])
    });
    let help = Paragraph::new(lines.to_vec()).block(Block::bordered().title("any key: away"));
    frame.render_widget(Clear, place);
    frame.render_widget(help, place);
}
