//! The rows of a table while it is being made.

use std::ops::Range;

use anyhow::{Result, ensure};
use tracer_ebpf::rule::Rule;

use super::RuleRow;
use super::code::Code;
use super::landmarks::{self, Landmark};
use super::omitted::Omitted;
use super::program::{Common, State};
use super::undescribed::Undescribed;

/// A table with more rows is refused: 256 MiB. `librustc_driver`, the largest
/// library at hand, has 1.2 million.
const MAX_ROWS: usize = 16 << 20;

/// The constant that the kernel side knows for stubs of the procedure linkage
/// table: see [`Kind::Plt`](tracer_ebpf::rule::Kind::Plt).
const PLT_THRESHOLD: u8 = 11;

/// Bytes of a stub.
const STUB: u64 = 16;

/// Rows in the making: all, and those for return addresses.
pub struct Rows<'a> {
    code: Code<'a>,
    base: u64,
    full: Vec<RuleRow>,
    returns: Vec<RuleRow>,
    /// Whether the last row for return addresses stands for code in which no
    /// call ends: its rule may be any.
    is_open: bool,
    undescribed: Undescribed,
    /// Whether the file has musl in it.
    is_musl: bool,
}

impl<'a> Rows<'a> {
    /// No rows; offsets count from `base`.
    pub fn new(code: Code<'a>, base: u64) -> Self {
        let first = RuleRow {
            offset: 0,
            rule: Rule::NONE,
        };
        Rows {
            code,
            base,
            full: vec![first],
            returns: vec![first],
            is_open: true,
            undescribed: Undescribed::default(),
            is_musl: false,
        }
    }

    /// Has the code that nothing describes told by what it does.
    pub fn with_undescribed(self, undescribed: Undescribed, entry: u64) -> Self {
        let mut code = self.code;
        let is_musl = landmarks::is_musls_start(&mut code, entry)
            || undescribed
                .regions()
                .any(|region| landmarks::has_musls_clone(&mut code, region));
        Self {
            code,
            is_musl,
            undescribed,
            ..self
        }
    }

    /// Bytes of code that nothing describes, and of which something is known by what it does.
    pub fn told(&self) -> u64 {
        self.undescribed.told()
    }

    /// All rows: for return addresses, and for any instruction.
    pub fn finish(self) -> (Vec<RuleRow>, Vec<RuleRow>) {
        (self.returns, self.full)
    }

    /// One rule for the code from `start` to `end`.
    ///
    /// # Errors
    /// Fails if there are too many rows.
    pub fn row(&mut self, start: u64, end: u64, rule: Rule) -> Result<()> {
        let Ok(offset) = u32::try_from(start - self.base) else {
            // Rows reach 4 GiB far.
            return Ok(());
        };
        if start >= end {
            return Ok(());
        }
        let row = RuleRow { offset, rule };
        push(&mut self.full, row);
        self.push_return(row, start..end);
        ensure!(
            self.full.len() <= MAX_ROWS,
            "its table has more than {MAX_ROWS} rows"
        );
        Ok(())
    }

    /// What call frame information says of the code from `start` to `end`.
    ///
    /// # Errors
    /// See [`row`](Self::row).
    pub fn state(
        &mut self,
        start: u64,
        end: u64,
        state: &State,
        common: &Common,
        omitted: &mut Omitted,
    ) -> Result<()> {
        match state.plt_threshold() {
            Some(threshold) if threshold != PLT_THRESHOLD => {
                self.stubs(start, end, u64::from(threshold), |pushed| {
                    state.with_sp(8 + 8 * i64::from(pushed)).rule(common)
                })
            }
            _ => {
                let rule = state.rule(common);
                omitted.unsupported += u64::from(rule == Rule::UNSUPPORTED);
                self.row(start, end, rule)
            }
        }
    }

    /// Rows for stubs in which one more word is on the stack from byte
    /// `threshold` on.
    fn stubs(
        &mut self,
        start: u64,
        end: u64,
        threshold: u64,
        rule: impl Fn(bool) -> Rule,
    ) -> Result<()> {
        let mut at = start;
        while at < end {
            let stub = at & !(STUB - 1);
            let pushed = at - stub >= threshold;
            let next = stub.saturating_add(if pushed { STUB } else { threshold.min(STUB) });
            self.row(at, next.min(end), rule(pushed))?;
            at = next;
        }
        Ok(())
    }

    /// Code that nothing describes: no rule, but for what its bytes tell.
    ///
    /// # Errors
    /// See [`row`](Self::row).
    pub fn gap(&mut self, start: u64, end: u64, entry: u64) -> Result<()> {
        let mut at = start;
        for Landmark { range, rule } in landmarks::find(&mut self.code, start..end, entry) {
            self.balanced(at, range.start)?;
            self.row(range.start.max(at), range.end, rule)?;
            at = at.max(range.end);
        }
        self.balanced(at, end)
    }

    /// The same between landmarks.
    fn balanced(&mut self, start: u64, end: u64) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        for (range, rule) in self.undescribed.rules(&mut self.code, start..end) {
            match rule {
                Some(rule) => self.row(range.start, range.end, rule)?,
                None => self.unknown(&range)?,
            }
        }
        Ok(())
    }

    /// Code of which nothing is known but that musl starts a program or a thread there.
    fn unknown(&mut self, range: &Range<u64>) -> Result<()> {
        let otherwise = self.undescribed.otherwise();
        let mut at = range.start;
        if self.is_musl {
            for start in landmarks::musls_starts(&mut self.code, range) {
                self.row(at, start.start, otherwise)?;
                self.row(start.start.max(at), start.end, Rule::END)?;
                at = at.max(start.end);
            }
        }
        self.row(at, range.end, otherwise)
    }

    /// Whether code is where the functions of `makecontext` return to.
    pub fn starts_context(&mut self, range: &Range<u64>) -> bool {
        landmarks::is_start_context(&mut self.code, range)
    }

    /// The end of a segment.
    ///
    /// # Errors
    /// See [`row`](Self::row).
    pub fn leave(&mut self, end: u64) -> Result<()> {
        self.row(end, end.saturating_add(1), Rule::NONE)
    }

    fn ends_calls(&mut self, rule: Rule, code: Range<u64>) -> bool {
        self.code.may_end_calls(code.start, code.end)
            && !(rule == Rule::NONE && landmarks::is_padding(&mut self.code, &code))
    }

    fn push_return(&mut self, row: RuleRow, code: Range<u64>) {
        let last = self.returns.last().map_or(Rule::NONE, |row| row.rule);
        if is_exact(row.rule) {
            push(&mut self.returns, row);
            self.is_open = false;
        } else if last == row.rule && !self.is_open {
            // Whether or not a call ends here, it is right.
        } else if self.ends_calls(row.rule, code) {
            match self.returns.last_mut() {
                Some(open) if self.is_open => open.rule = row.rule,
                _ => push(&mut self.returns, row),
            }
            self.is_open = false;
        } else if is_exact(last) {
            let rule = Rule::NONE;
            push(&mut self.returns, RuleRow { rule, ..row });
            self.is_open = true;
        }
    }
}

/// Whether a rule holds for its own code alone. Such rows are looked up for
/// addresses that no call precedes, too.
fn is_exact(rule: Rule) -> bool {
    rule == Rule::END || rule == Rule::SIGNAL
}

/// Adds a row, unless it only repeats.
fn push(rows: &mut Vec<RuleRow>, row: RuleRow) {
    match rows.last_mut() {
        Some(last) if last.rule == row.rule => {}
        Some(last) if last.offset == row.offset => last.rule = row.rule,
        _ => rows.push(row),
    }
}
