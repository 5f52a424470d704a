//! The table on standard output and in `.txt` files.

mod balance;
mod budget;
mod chance;
mod findings;
mod footer;
mod growth;
mod harm;
mod header;
mod java_heap;
mod java_memory;
mod java_native;
mod jvm;
mod layout;
mod lifetimes;
mod mapping;
mod order;
mod origins;
mod pages;
mod path;
mod resources;
mod site;
mod stack;
mod table;
mod telling;
mod untraced;
mod window;

use std::io::{self, IsTerminal, Write};

pub use findings::{MAX_FINDINGS, SHORTEST};
pub use layout::{Layout, PLAIN, ROWS};
pub use lifetimes::young_blocks;
pub use path::deepest;
pub use site::nothing_live;
pub use stack::Stack;
pub use table::{Cell, Row, Table};
pub use untraced::children_sentence;

use crate::cli::table::TableArgs;
use crate::model::Report;
use crate::report::numbers::Numbers;

/// The report as text: what was traced, the top sites with their stacks, the
/// rest in one line, losses, cost. Every line ends with a newline and none is
/// wider than the layout.
pub fn render(report: &Report, layout: &Layout) -> String {
    let mut text = String::new();
    let numbers = Numbers::of(report);
    header::render(&mut text, report, layout);
    findings::render(&mut text, report, layout);
    harm::render(&mut text, report, layout);
    untraced::render(&mut text, report, layout);
    site::render(&mut text, report, &numbers, layout);
    growth::render(&mut text, report, &numbers, layout);
    resources::render(&mut text, report, &numbers, layout);
    java_heap::render(&mut text, report, &numbers, layout);
    java_memory::render(&mut text, report, layout);
    java_native::render(&mut text, report, layout);
    jvm::render(&mut text, report, layout);
    footer::render(&mut text, report, layout);
    text
}

/// Prints the table on standard output, as wide as the terminal, with colours
/// if standard output is a terminal that wants them (NO_COLOR is honoured).
///
/// # Errors
/// Fails when standard output cannot be written; a reader that closed the
/// pipe is not an error.
pub fn print(report: &Report, table: &TableArgs) -> anyhow::Result<()> {
    print_text(&render(report, &Layout::of_stdout().with(table)))
}

/// Writes text to standard output.
///
/// # Errors
/// See [`print`].
pub fn print_text(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

impl Layout {
    /// The layout for standard output as it is now.
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        let terminal = if stdout.is_terminal() {
            terminal_size::terminal_size_of(&stdout)
        } else {
            None
        };
        let colour = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        Self::new(
            ROWS,
            terminal.map(|(width, _)| usize::from(width.0)),
            colour,
        )
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::model::*;
    use crate::report::sample;

    fn grown_by(growth: i64) -> Balance {
        Balance {
            growth,
            ..Balance::default()
        }
    }

    fn plain(report: &Report, width: usize) -> String {
        render(report, &Layout::new(10, Some(width), false))
    }

    #[test]
    fn the_three_kinds_of_site_read_differently() {
        let text = plain(&sample::report(), 100);
        let expected = "\
leaky (1234), traced for 1m 00s from 2026-11-21T20:03:22Z
Live: 10.7 MiB in 11,032 blocks (11,208,104 bytes) from 3 call paths
Allocated: 302 MiB in 310,009 blocks; 5.03 MiB/s, 5,167 blocks/s
Freed: 291 MiB in 298,977 blocks, 96.4% of the blocks; and 12 frees of blocks from before the run

1. LEAK (90 % sure) open_session(int) allocates memory that is never freed: 164 KiB/s
   main > open_session(int) > Session::Session()
   9.63 MiB live in 10,007 blocks, since 500 ms; nothing of it was freed.
   At this rate the 100 MiB left of machine (1.00 GiB) are used up in 10m 24s.
Not leaks: 1 call path of start-up (64.0 KiB).

 #       LIVE  BLOCKS  SHARE  OLDEST  LAST ALLOC  ALLOCS/S   BYTES/S  FREED  LIFETIME OF FREED
 1   9.63 MiB  10,007  90.1%  59.0 s  100 ms ago       167   164 KiB     0%  –
    looks like a leak (90 % sure) · 10,097,063 bytes live · allocated 10,007 · freed 0 · by malloc
    Session::Session() (inlined)  leaky/session.h:7
    open_session(int)  leaky/session.cpp:42
    main  leaky/main.cpp:90
    __libc_start_main  (libc.so.6)

 2  1,021 KiB   1,024   9.3%  200 ms  100 ms ago     5,000  4.87 MiB  99.7%  median <268 ms
    freed and replaced (97 % sure) · 1,045,504 bytes live · allocated 300,000 (306,300,000 bytes)
    freed 298,976 (305,254,496 bytes), all within 268 ms · by malloc
    Cache::insert(Key const&)  leaky/cache.cpp:13
    main  leaky/main.cpp:90
    __libc_start_main  (libc.so.6)

1 more call path holds 64.0 KiB in 1 block live and does not grow: --top 3 shows all.
1 call path holds nothing live.

Stacks: 100% of the allocations have whole ones.
Cost: 608,985 probe hits of about 610 ns, together about 371 ms of the target's time, at least 350
ms and at most 392 ms (0.6% of one core during the run); 64.0 MiB of kernel memory; 250 ms of the
tracer's own CPU time.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut report = sample::report();
        report.losses[0].count = 3;
        report.sites[0].frames[2].function = Some(
            "std::vector<日本語, std::allocator<日本語>>::emplace_back"
                .repeat(4)
                .into(),
        );
        for width in [20, 40, 60, 79, 80, 100, 200] {
            for line in plain(&report, width).lines() {
                assert!(line.width() <= width, "{} > {width}: {line}", line.width());
            }
        }
    }

    #[test]
    fn the_target_cannot_steer_the_terminal() {
        let mut report = sample::report();
        report.processes[0].name = "\x1b[2J".into();
        report.losses[0] = Loss {
            cause: "\x1b[1m".into(),
            count: 1,
            meaning: "\x07".into(),
        };
        let frame = &mut report.sites[0].frames[2];
        frame.function = Some("\x1b]52;c;aGk=\x07".into());
        frame.file = Some("/tmp/\r\x1b[A".into());
        report.sites[1].frames[2] = Frame {
            module: Some("/tmp/\x1b[31m".into()),
            reason: Some("\x1b[0m".into()),
            ..Frame::default()
        };
        let text = plain(&report, 100);
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
    }

    #[test]
    fn numbers_touched_by_a_loss_are_marked_and_explained() {
        let mut report = sample::report();
        report.losses[0].count = 1_234;
        report.sites[1].lower_bound = true;
        let text = plain(&report, 100);
        assert!(text.contains("Live: ~10.7 MiB"), "{text}");
        assert!(text.contains("Allocated: ≥302 MiB"), "{text}");
        assert!(text.contains("~1,045,504 bytes live"), "{text}");
        assert!(text.contains("1,234 × live_map_full"), "{text}");
        assert!(text.contains("Raise --max-live."), "{text}");
    }

    #[test]
    fn estimates_are_marked_with_their_errors() {
        let text = plain(&sample::sampled_report(), 400);
        for part in [
            "Live: ~10.7 MiB ± 2.35 MiB in ~11,032 blocks ± 2,379 (~11,208,104 bytes)",
            "Allocated: ~302 MiB ± 12.3 MiB in ~310,009 blocks",
            "Sampled: a block of S bytes with probability 1 - e^(-S/512 KiB); 606 blocks chosen, 22 live.",
            "~9.63 MiB ±23%",
            "19 of 19 sampled blocks live",
            // The score interval of 19.5 events of 505 KiB.
            "95%: 6.20 MiB to 15.0 MiB live",
            "~1,021 KiB ±71% ?",
            "2 of 585 sampled blocks live",
            "too little was seen to rank it",
            "all that were sampled within 268 ms",
            "1 call path holds no sampled block that is live.",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn nothing_live_in_a_sample_is_not_nothing_live() {
        let mut report = sample::sampled_report();
        report.sites.retain(|site| site.live_count == 0);
        report.totals.live_bytes = 0;
        report.totals.live_count = 0;
        let text = plain(&report, 300);
        let said = "Nothing that was allocated during the run is still live. That is said of \
            sampled blocks: with a probability of 95% less than 1.50 MiB of others is live.";
        assert!(text.contains(said), "{text}");
    }

    #[test]
    fn names_that_were_cut_are_told_and_make_no_number_an_estimate() {
        let mut report = sample::report();
        report.shortened = Shortened {
            names: 1_234,
            length: 250,
            inlined: 7,
        };
        let text = plain(&report, 200);
        let expected = "Names: 1,234 names cut at 250 B, since all together would take too much \
            room; inlined functions left out at 7 places, since there are so many frames.";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("Live: 10.7 MiB"), "{text}");
    }

    #[test]
    fn an_empty_report_claims_no_leak_only_without_losses() {
        let mut report = sample::report();
        report.sites.retain(|site| site.live_count == 0);
        report.totals.live_bytes = 0;
        report.totals.live_count = 0;
        assert!(plain(&report, 100).contains("Nothing that was allocated"));
        report.balance = vec![grown_by(100)];
        let text = plain(&report, 100);
        assert!(!text.contains("Nothing that was allocated"), "{text}");
        assert!(text.contains("the resident set grew by 100 B"), "{text}");
        report.balance = vec![grown_by(-100)];
        assert!(plain(&report, 100).contains("Nothing that was allocated"));
        report.balance.clear();
        report.losses[0].count = 1;
        let text = plain(&report, 100);
        assert!(!text.contains("Nothing that was allocated"), "{text}");
        assert!(text.contains("but events were lost"), "{text}");
    }

    #[test]
    fn what_goes_in_step_is_told_with_what_it_goes_with() {
        let mut report = sample::report();
        let leak = report.findings[0].clone();
        let follower = |number: u64| Finding {
            function: format!("keep_{number}"),
            sites: vec![10 + number],
            in_step_with: leak.sites.first().copied(),
            bytes_per_second: 1_024.0,
            ..leak.clone()
        };
        report.findings.splice(1..1, (2..=7).map(follower));
        let text = plain(&report, 300);
        let expected = "As many blocks at each look, and so probably the same fault: keep_2 (2), \
            1.00 KiB/s; keep_3 (3), 1.00 KiB/s; keep_4 (4), 1.00 KiB/s; keep_5 (5), 1.00 KiB/s; 2 more.";
        assert!(text.contains(expected), "{text}");
        assert!(
            !text.contains("\n2. LEAK") && !text.contains("lesser"),
            "{text}"
        );
    }

    #[test]
    fn what_the_table_leaves_out_is_summed() {
        let text = render(&sample::report(), &Layout::new(1, Some(100), false));
        assert!(
            text.contains("1 more call path: 1,021 KiB in 1,024 blocks live."),
            "{text}"
        );
        let small = "1 more call path holds 64.0 KiB in 1 block live and does not grow: --top 3";
        assert!(text.contains(small), "{text}");
        // Who asks for rows gets them, whatever they hold.
        let mut layout = Layout::new(2, Some(100), false);
        layout.small_rows = true;
        let text = render(&sample::report(), &layout);
        assert!(
            text.contains("1 more call path: 64.0 KiB in 1 block live."),
            "{text}"
        );
        assert!(text.contains("1 call path holds nothing live."), "{text}");
    }

    #[test]
    fn colours_only_when_asked_for() {
        assert!(!plain(&sample::report(), 100).contains('\x1b'));
        assert!(render(&sample::report(), &Layout::new(10, None, true)).contains('\x1b'));
    }

    #[test]
    fn every_row_names_its_process_when_there_are_several() {
        let mut report = sample::report();
        assert!(!plain(&report, 100).contains("in leaky (1234)"));
        report.processes.push(Process {
            pid: 77,
            name: "child".into(),
            ..report.processes[0].clone()
        });
        report.sites[1].process = 1;
        let text = plain(&report, 100);
        assert!(
            text.contains("in leaky (1234)") && text.contains("in child (77)"),
            "{text}"
        );
    }
}
