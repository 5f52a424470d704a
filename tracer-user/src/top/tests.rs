//! The whole screen, drawn on a terminal that is none.

use std::sync::Arc;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Modifier;

use super::draw::draw;
use super::model::{Effect, Item, Model};
use crate::cli::table::Sort;
use crate::model::{Report, Searched, SiteWindow, Window};
use crate::report::sample;

fn model() -> Model {
    let mut model = Model::new("leaky (1234)");
    model.take(Arc::new(sample::report()));
    model
}

fn press(model: &mut Model, keys: &str) -> Effect {
    let mut effect = Effect::None;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            letter => KeyCode::Char(letter),
        };
        effect = model.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    effect
}

fn drawn(model: &Model, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width);
    let cells: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    let lines = cells.chunks(width).map(|line| line.concat());
    lines.map(|line| line.trim_end().to_owned()).collect()
}

fn screen(model: &Model, size: (u16, u16)) -> String {
    text(&drawn(model, size)).join("\n")
}

/// The line that is marked.
fn marked(model: &Model, size: (u16, u16)) -> String {
    let buffer = drawn(model, size);
    let width = usize::from(size.0);
    let mut lines = text(&buffer).into_iter().zip(buffer.content.chunks(width));
    let is_marked = |cells: &[ratatui::buffer::Cell]| {
        let reversed = |cell: &ratatui::buffer::Cell| cell.modifier.contains(Modifier::REVERSED);
        cells.iter().any(reversed)
    };
    let line = lines.find(|(_, cells)| is_marked(cells));
    line.map_or_else(String::new, |(line, _)| line)
}

fn names(model: &Model) -> Vec<&str> {
    model.rows().iter().map(|row| row.name.as_str()).collect()
}

#[test]
fn findings_come_first_then_the_table() {
    let text = screen(&model(), (100, 24));
    let expected = "\
unfreed top  leaky (1234)  LIVE 1m 00s  by growth
10.7 MiB live in 11,032 blocks
1. LEAK 90 % open_session(int) allocates memory that is never freed: 164 KiB/s; machine is full in 1
    #       LIVE     BLOCKS   GROWTH/s    ALLOC/s      AGE TREND              CALL PATH OF
    1   9.63 MiB     10,007          –    164 KiB   59.0 s ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ ! Session::Session()
    2  1,021 KiB      1,024          –   4.87 MiB   200 ms ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁   Cache::insert(Key cons
    3   64.0 KiB          1          –   1.07 KiB   59.0 s ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁   load_config()
";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with("? help  q end"), "{text}");
    assert!(marked(&model(), (100, 24)).starts_with("1. LEAK"));
}

#[test]
fn every_size_is_drawn() {
    let mut model = model();
    for keys in ["", "\n", "?", "?\n/x"] {
        press(&mut model, keys);
        for width in [1, 2, 7, 20, 40, 79, 80, 200] {
            for height in [1, 2, 3, 4, 10, 20, 24, 50] {
                drawn(&model, (width, height));
            }
        }
    }
}

#[test]
fn a_phone_shows_what_grows_and_where() {
    let text = screen(&model(), (40, 20));
    assert!(text.contains("1. LEAK 90 % open_session(int)"), "{text}");
    assert!(text.contains(" 9.63 MiB"), "{text}");
    assert!(text.contains("! Session::Sess"), "{text}");
}

#[test]
fn rows_are_sorted_as_asked() {
    let mut model = model();
    let (leak, cache, start) = (
        "Session::Session()",
        "Cache::insert(Key const&)",
        "load_config()",
    );
    assert_eq!(names(&model), [leak, cache, start]);
    press(&mut model, "r");
    assert_eq!(names(&model), [cache, leak, start]);
    press(&mut model, "l");
    assert_eq!(names(&model), [leak, cache, start]);
    press(&mut model, "s");
    assert_eq!(model.order(), Sort::Rate);
    press(&mut model, "ss");
    assert_eq!(model.order(), Sort::Growth);
}

#[test]
fn what_is_chosen_stays_chosen_wherever_it_goes() {
    let mut model = model();
    press(&mut model, "jj");
    let chosen = |model: &Model| match model.item() {
        Some(Item::Row(row)) => row.name.clone(),
        Some(Item::Finding(found)) => found.title.clone(),
        None => String::new(),
    };
    assert_eq!(chosen(&model), "Cache::insert(Key const&)");
    press(&mut model, "r");
    assert_eq!(chosen(&model), "Cache::insert(Key const&)");
    assert_eq!(model.position(), 1);
    let mut report = sample::report();
    report.findings.clear();
    model.take(Arc::new(report));
    assert_eq!(
        (chosen(&model).as_str(), model.position()),
        ("Cache::insert(Key const&)", 0)
    );
    press(&mut model, "jjjjjjj");
    assert_eq!(chosen(&model), "load_config()");
    press(&mut model, "kkkkkkk");
    assert_eq!(model.position(), 0);
}

#[test]
fn a_filter_leaves_what_has_its_letters_in_its_path() {
    let mut model = model();
    press(&mut model, "/CACHE");
    assert_eq!(names(&model), ["Cache::insert(Key const&)"]);
    assert!(model.findings().is_empty());
    assert!(screen(&model, (80, 24)).contains("/CACHE█"));
    // Letters are letters: none of these is a key.
    press(&mut model, "q\x08\n");
    assert_eq!(model.filter(), ("CACHE", false));
    assert!(screen(&model, (80, 24)).contains("/CACHE"));
    press(&mut model, "\x1b");
    assert_eq!(model.rows().len(), 3);
    press(&mut model, "/main\n");
    assert_eq!(model.rows().len(), 3, "it is in each path");
    press(&mut model, "/nothing has this");
    assert!(screen(&model, (80, 24)).contains("No finding has these letters."));
    assert_eq!(press(&mut model, "\x1b"), Effect::None);
}

#[test]
fn the_details_are_those_of_explain() {
    let mut model = model();
    press(&mut model, "\n");
    let text = screen(&model, (100, 50));
    assert!(text.contains("stack and evidence"), "{text}");
    assert!(
        text.contains("1. LEAK (90 % sure) open_session(int)"),
        "{text}"
    );
    press(&mut model, "jj");
    let text = screen(&model, (100, 50));
    assert!(text.contains("cache.cpp:13"), "{text}");
    // On a small screen they take the place of the list.
    let text = screen(&model, (40, 16));
    assert!(
        text.contains("CHURN") && !text.contains("CALL PATH OF"),
        "{text}"
    );
    press(&mut model, "\x1b");
    assert!(!screen(&model, (100, 50)).contains("stack and evidence"));
}

#[test]
fn a_pause_holds_what_is_shown_and_not_what_is_known() {
    let mut model = model();
    press(&mut model, " ");
    let mut report = sample::report();
    report.duration = 70.0;
    report.sites[0].live_bytes += 1 << 20;
    model.take(Arc::new(report.clone()));
    let text = screen(&model, (100, 24));
    assert!(
        text.contains("PAUSED 1m 00s") && text.contains(" 9.63 MiB"),
        "{text}"
    );
    press(&mut model, " ");
    let text = screen(&model, (100, 24));
    assert!(
        text.contains("LIVE 1m 10s") && text.contains(" 10.6 MiB"),
        "{text}"
    );
    // A mebibyte in ten seconds.
    assert!(text.contains(" +102 KiB"), "{text}");
    assert!(
        text.contains("▁█ !") || text.contains("▁▁▁▁▁▁▁█ !"),
        "{text}"
    );
}

#[test]
fn rates_are_those_of_the_window() {
    let mut report = sample::report();
    let sums = SiteWindow {
        allocated_bytes: 4096,
        ..SiteWindow::default()
    };
    report.window = Some(Window {
        began: 58.0,
        ended: 60.0,
        sums,
        ..Window::default()
    });
    report.sites[0].window = Some(sums);
    let mut model = Model::new("a");
    model.take(Arc::new(report));
    let rates: Vec<f64> = model.rows().iter().map(|row| row.rate).collect();
    assert_eq!(rates, [2048.0, 0.0, 0.0]);
    assert!(screen(&model, (100, 24)).contains("2.00 KiB/s allocated"));
}

#[test]
fn what_was_lost_makes_estimates() {
    let mut report = sample::report();
    report.losses[0].count = 3;
    report.sites[0].lower_bound = true;
    let mut model = Model::new("a");
    model.take(Arc::new(report));
    let text = screen(&model, (100, 24));
    assert!(
        text.contains("~10.7 MiB live") && text.contains("3 events lost"),
        "{text}"
    );
    assert!(text.contains(" ~9.63 MiB "), "{text}");
}

#[test]
fn a_target_cannot_steer_the_terminal() {
    let mut report = sample::report();
    report.processes[0].name = "\x1b[2J".into();
    report.findings[0].title = "\x1b]52;c;aGk=\x07".into();
    report.sites[0].frames[2].function = Some("\x1b[31mevil\r".into());
    report.sites[0].frames[3].function = Some("\x1b[31mevil\r".into());
    let mut model = Model::new("a\x1b[2J");
    model.take(Arc::new(report));
    model.say("\x1b[2J");
    press(&mut model, "j\n");
    for size in [(100, 50), (40, 20)] {
        let text = screen(&model, size);
        assert!(
            !text.contains(|c: char| c.is_control() && c != '\n'),
            "{text:?}"
        );
    }
}

#[test]
fn keys_ask_for_what_the_screen_does() {
    let mut none = Model::new("a");
    assert_eq!(press(&mut none, "e"), Effect::None, "there is nothing yet");
    assert!(screen(&none, (80, 24)).contains("there is no report yet"));
    let mut model = model();
    assert_eq!(press(&mut model, "e"), Effect::Export);
    assert_eq!(press(&mut model, "?"), Effect::None);
    assert!(screen(&model, (80, 24)).contains("any key: away"));
    press(&mut model, "e");
    assert!(!screen(&model, (80, 24)).contains("any key: away"));
    press(&mut model, "h");
    assert!(screen(&model, (80, 24)).contains("where `top -p` follows allocations"));
    press(&mut model, "k");
    model.end("the processes have ended");
    let text = screen(&model, (80, 24));
    assert!(text.contains("ENDED") && text.contains("the processes have ended; q ends"));
    assert_eq!(press(&mut model, "q"), Effect::Quit);
    let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.press(control), Effect::Quit);
}

/// The searched sites are those of the line, and what was found is in its details.
#[test]
fn who_holds_a_line_is_asked_for_and_told() {
    let mut report = sample::report();
    for site in &mut report.sites {
        site.indices = vec![10 + u32::try_from(site.id).unwrap(), 100];
    }
    let mut model = Model::new("a");
    model.take(Arc::new(report.clone()));
    assert_eq!(press(&mut model, "h"), Effect::Holders(vec![11, 100]));
    assert!(screen(&model, (80, 24)).contains("searching the process's memory"));
    assert!(screen(&model, (100, 50)).contains("stack and evidence"));
    assert_eq!(press(&mut model, "jj"), Effect::None);
    let Some(Item::Row(row)) = model.item() else {
        panic!("no row is chosen");
    };
    assert_eq!(row.name, "Cache::insert(Key const&)");
    let cache = report.sites.iter_mut().find(|it| it.live_count == 1024);
    let cache = cache.unwrap();
    let index = 10 + u32::try_from(cache.id).unwrap();
    cache.holders = Some(sample::holders());
    report.searched = Some(Searched {
        at: Some(12.5),
        ..Searched::default()
    });
    assert_eq!(press(&mut model, "h"), Effect::Holders(vec![index, 100]));
    model.take(Arc::new(report));
    let text = screen(&model, (120, 80));
    assert!(text.contains("60 of 64: g_cache (service)"), "{text}");
    assert!(text.contains("12.5 s after the run's start"), "{text}");
    model.end("the processes have ended");
    assert_eq!(press(&mut model, "h"), Effect::None);
    assert!(screen(&model, (120, 80)).contains("nothing is searched any more"));
}

#[test]
fn an_empty_report_is_shown() {
    let report = Report {
        sites: Vec::new(),
        findings: Vec::new(),
        ..sample::report()
    };
    let mut model = Model::new("a");
    assert!(screen(&model, (80, 24)).contains("the first report is being made"));
    model.take(Arc::new(report));
    press(&mut model, "jk\n");
    assert!(screen(&model, (80, 24)).contains("No leak seen until now."));
}
