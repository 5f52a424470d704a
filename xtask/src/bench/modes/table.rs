//! Tables of what is left, and of what tracers take.

use std::fmt::Write as _;

use super::{Mode, Round, Traced};
use crate::bench::figures::{extremes, median};
use crate::bench::rounds::Measured;
use crate::bench::service::Load;

/// The part that is left of each service, and all figures behind it.
pub(super) fn all(rounds: usize, modes: &[Mode], measured: &[Measured<Round>]) -> String {
    let mut reasons = Vec::new();
    let names: Vec<_> = modes.iter().map(|mode| mode.name()).collect();
    let mut text = format!(
        "{rounds} interleaved rounds: the throughput without a tracer, and what is left of it \
         with one (median, and the least and the most of all rounds).\n\n\
         | | without | {} |\n|---|---|{}\n",
        names.join(" | "),
        "---|".repeat(modes.len())
    );
    for (kind, rounds) in measured {
        let _ = match rounds {
            Ok(rounds) => writeln!(text, "{}", row(kind.name(), modes, rounds, &mut reasons)),
            Err(error) => writeln!(
                text,
                "| {} | failed: {error:#} |{}",
                kind.name(),
                " |".repeat(modes.len())
            ),
        };
    }
    for reason in reasons {
        let _ = writeln!(text, "\n{reason}");
    }
    text.push_str(
        "\nAll figures, medians. A second: operations. 99 %: the time within which so many of \
         them are done. Beside: the processor time of the tracer's own processes, their resident \
         memory, and the kernel's memory for it.\n\n\
         | | | a second | 99 % | beside | resident | in the kernel |\n|---|---|---|---|---|---|---|\n",
    );
    for (kind, rounds) in measured {
        let Ok(rounds) = rounds else { continue };
        text.push_str(&details(kind.name(), modes, rounds));
    }
    text
}

/// A round's figures of a mode, of all rounds in which it did not fail.
fn traced(rounds: &[Round], mode: Mode) -> impl Iterator<Item = (&Round, &Traced)> {
    rounds.iter().filter_map(move |round| {
        let (_, traced) = round.traced.iter().find(|(of, _)| *of == mode)?;
        Some((round, traced.as_ref().ok()?))
    })
}

fn row(name: &str, modes: &[Mode], rounds: &[Round], reasons: &mut Vec<String>) -> String {
    let plain = median(rounds.iter().map(|round| round.plain.rate).collect());
    let mut row = format!("| {name} | {plain:.0}/s |");
    for mode in modes {
        let left: Vec<f64> = traced(rounds, *mode)
            .map(|(round, traced)| traced.load.rate / round.without(*mode).rate)
            .collect();
        let failed = rounds.iter().flat_map(|round| &round.traced);
        let mut failed =
            failed.filter_map(|(of, traced)| traced.as_ref().err().filter(|_| of == mode));
        if let Some(why) = failed.next() {
            let times = 1 + failed.count();
            let first = why.lines().next().unwrap_or_default();
            reasons.push(format!(
                "{name}, {}: failed {times} of {} times: {first}",
                mode.name(),
                rounds.len()
            ));
        }
        if left.is_empty() {
            row.push_str(" failed |");
            continue;
        }
        let (least, most) = extremes(&left);
        let _ = write!(row, " {:.3} ({least:.3} to {most:.3}) |", median(left));
    }
    row
}

fn details(name: &str, modes: &[Mode], rounds: &[Round]) -> String {
    let plain = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let mut text = format!(
        "| {name} | none | {:.0} | {} | | | |\n",
        plain(|round| round.plain.rate),
        milliseconds(plain(|round| round.plain.p99.unwrap_or(f64::NAN)))
    );
    let fresh: Vec<Load> = rounds.iter().filter_map(|round| round.fresh).collect();
    if !fresh.is_empty() {
        let fresh = |of: fn(&Load) -> f64| median(fresh.iter().map(of).collect());
        let _ = writeln!(
            text,
            "| | none, started anew | {:.0} | {} | | | |",
            fresh(|load| load.rate),
            milliseconds(fresh(|load| load.p99.unwrap_or(f64::NAN)))
        );
    }
    for mode in modes {
        let middle =
            |of: fn(&Traced) -> f64| median(traced(rounds, *mode).map(|(_, it)| of(it)).collect());
        let rate = middle(|it| it.load.rate);
        if rate.is_nan() {
            continue;
        }
        let kernel = middle(|it| it.beside.kernel as f64);
        let _ = writeln!(
            text,
            "| | {} | {rate:.0} | {} | {:.1} ms/s | {} | {} |",
            mode.name(),
            milliseconds(middle(|it| it.load.p99.unwrap_or(f64::NAN))),
            1e3 * middle(|it| it.beside.processor),
            mib(middle(|it| it.beside.resident as f64)),
            if kernel > 0.0 {
                mib(kernel)
            } else {
                String::new()
            },
        );
    }
    text
}

fn milliseconds(seconds: f64) -> String {
    match seconds {
        unknown if unknown.is_nan() => String::new(),
        known => format!("{:.2} ms", known * 1e3),
    }
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::modes::Beside;
    use crate::bench::service::Kind;

    fn load(rate: f64) -> Load {
        Load {
            operations: 1,
            rate,
            p99: Some(0.001),
        }
    }

    fn one(rate: f64) -> Result<Traced, String> {
        Ok(Traced {
            load: load(rate),
            beside: Beside {
                processor: 0.005,
                resident: 30 << 20,
                kernel: 10 << 20,
            },
        })
    }

    #[test]
    fn throughput_is_compared_within_a_round() {
        let round = |scale: f64, exact: f64| Round {
            plain: load(1000.0 * scale),
            fresh: Some(load(800.0 * scale)),
            traced: vec![
                (Mode::Exact, one(exact * scale)),
                (Mode::Growth, one(990.0 * scale)),
                (Mode::Sampler, one(720.0 * scale)),
                (Mode::Heaptrack, Err("no\nmore".into())),
            ],
        };
        let rounds = vec![round(1.0, 100.0), round(7.0, 120.0), round(2.0, 90.0)];
        let modes = [Mode::Exact, Mode::Growth, Mode::Sampler, Mode::Heaptrack];
        let measured = [
            (Kind::Redis, Ok(rounds)),
            (Kind::Nginx, Err(anyhow::anyhow!("it is not there"))),
        ];
        let text = all(3, &modes, &measured);
        for line in [
            "| 0.990 (0.990 to 0.990) | 0.900 (0.900 to 0.900) | failed |",
            "| none, started anew | 1600 |",
            "heaptrack: failed 3 of 3 times: no\n",
            "| failed: it is not there | | | | |",
            "| none | 2000 | 1.00 ms | | | |",
            "| | exact | 180 | 1.00 ms | 5.0 ms/s | 30.0 MiB | 10.0 MiB |",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
