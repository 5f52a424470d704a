//! What a program has leaked, by its own account.

/// Its lines, in the order of time: seconds since 1970, and bytes leaked until then.
#[derive(Debug, Default)]
pub(super) struct Truth(Vec<(f64, f64)>);

impl Truth {
    /// Takes a line, if it is one: `truth SECONDS BYTES`.
    pub(super) fn hear(&mut self, line: &str) {
        let parsed = line.strip_prefix("truth ").and_then(|rest| {
            let (time, bytes) = rest.split_once(' ')?;
            Some((time.parse().ok()?, bytes.parse().ok()?))
        });
        self.0.extend(parsed);
    }

    /// Bytes that leaked between two moments. Between two lines the rate is steady; before
    /// the first one nothing leaked.
    pub(super) fn leaked(&self, from: f64, to: f64) -> f64 {
        self.until(to) - self.until(from)
    }

    fn until(&self, moment: f64) -> f64 {
        let after = self.0.partition_point(|(time, _)| *time <= moment);
        let (Some(before), next) = (after.checked_sub(1), self.0.get(after)) else {
            return 0.0;
        };
        let (begin, bytes) = self.0[before];
        let Some((end, more)) = next else {
            return bytes;
        };
        bytes + (more - bytes) * (moment - begin) / (end - begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_lines_the_rate_is_steady() {
        let mut truth = Truth::default();
        for line in [
            "ready",
            "truth 10.0 0",
            "truth 10.5 100",
            "other",
            "truth 11.0 300",
        ] {
            truth.hear(line);
        }
        let is =
            |from, to, bytes: f64| assert_eq!(truth.leaked(from, to).to_bits(), bytes.to_bits());
        is(10.0, 11.0, 300.0);
        is(10.5, 10.75, 100.0);
        is(9.0, 10.25, 50.0);
        is(10.75, 99.0, 100.0);
        assert_eq!(
            Truth::default().leaked(0.0, 1.0).to_bits(),
            0.0f64.to_bits()
        );
    }
}
