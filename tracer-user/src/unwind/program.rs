//! Call frame instructions (DWARF 5, section 6.4.2), run for the registers
//! that rules speak of. All others are skipped.

use gimli::{CallFrameInstruction, CallFrameInstructionIter, EndianSlice, LittleEndian, Register};
use gimli::{UnwindExpression, UnwindSection};
use tracer_ebpf::rule::{Base, Kind, Rule, Saved};

use super::expression::{Expression, register};

/// How section bytes are read.
pub type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// States remembered at a time, at most. Compilers nest them once.
const MAX_REMEMBERED: usize = 16;

/// How a frame's CFA is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cfa {
    Register(u16, i64),
    Expression(Expression),
}

/// Where the caller's value of a register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing is said.
    Unspecified,
    Undefined,
    Same,
    /// This far from the CFA.
    Cfa(i64),
    /// At what an expression computes.
    At(Expression),
    Elsewhere,
}

/// One row of the table that the instructions describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    cfa: Cfa,
    return_address: Place,
    bp: Place,
    bx: Place,
}

/// Instructions that make no sense.
#[derive(Debug)]
pub struct Malformed;

impl From<gimli::Error> for Malformed {
    fn from(_: gimli::Error) -> Self {
        Malformed
    }
}

/// What all entries of one kind (a CIE) have in common.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    pub code_alignment: u64,
    pub data_alignment: i64,
    /// Whether the frame is a signal's.
    pub is_signal: bool,
    /// Whether the return address has the column that it always has.
    pub is_plain: bool,
    /// What holds at a function's first instruction.
    pub initial: State,
}

impl State {
    /// Before any instruction.
    pub const UNKNOWN: State = State {
        cfa: Cfa::Expression(Expression::Other),
        return_address: Place::Unspecified,
        bp: Place::Unspecified,
        bx: Place::Unspecified,
    };

    fn place(&mut self, register: Register) -> Option<&mut Place> {
        match register.0 {
            register::RBX => Some(&mut self.bx),
            register::RBP => Some(&mut self.bp),
            register::RETURN_ADDRESS => Some(&mut self.return_address),
            _ => None,
        }
    }

    fn set(&mut self, register: Register, place: Place) {
        if let Some(old) = self.place(register) {
            *old = place;
        }
    }

    fn set_offset(&mut self, offset: i64) {
        self.cfa = match self.cfa {
            Cfa::Register(register, _) => Cfa::Register(register, offset),
            Cfa::Expression(_) => Cfa::Expression(Expression::Other),
        };
    }

    /// The stub's byte from which on 8 more are on the stack, if the row is
    /// that of a procedure linkage table.
    pub fn plt_threshold(&self) -> Option<u8> {
        match self.cfa {
            Cfa::Expression(Expression::Plt(threshold)) => Some(threshold),
            _ => None,
        }
    }

    /// The same with a CFA of rsp + `offset`.
    pub fn with_sp(self, offset: i64) -> State {
        State {
            cfa: Cfa::Register(register::RSP, offset),
            ..self
        }
    }

    /// The row in one word.
    pub fn rule(&self, common: &Common) -> Rule {
        if !common.is_plain {
            return Rule::UNSUPPORTED;
        }
        if self.return_address == Place::Undefined {
            return Rule::END;
        }
        if common.is_signal && self.is_signal_frame() {
            return Rule::SIGNAL;
        }
        if self.return_address != Place::Cfa(-8) {
            return Rule::UNSUPPORTED;
        }
        let (kind, offset) = match self.cfa {
            Cfa::Register(register::RSP, offset) => (Kind::Sp, offset),
            Cfa::Register(register::RBP, offset) => (Kind::Bp, offset),
            Cfa::Register(register::RBX, offset) => (Kind::Bx, offset),
            Cfa::Expression(Expression::Deref(register::RSP, offset)) => (Kind::DerefSp, offset),
            Cfa::Expression(Expression::Deref(register::RBP, offset)) => (Kind::DerefBp, offset),
            Cfa::Expression(Expression::Plt(_)) => (Kind::Plt, 8),
            _ => return Rule::UNSUPPORTED,
        };
        let (bp, bx) = (slot(self.bp, kind, offset), slot(self.bx, kind, offset));
        let base = match (bp, bx) {
            (Slot::At(base, _), _) | (_, Slot::At(base, _)) => base,
            _ => Base::Cfa,
        };
        let [bp, bx] = [bp, bx].map(|slot| slot.saved(base));
        Rule::new(kind, offset, base, bp, bx).unwrap_or(Rule::UNSUPPORTED)
    }

    /// Whether it says what the kernel's `struct rt_sigframe` looks like from
    /// the trampoline on: the registers are in a `struct sigcontext`.
    fn is_signal_frame(&self) -> bool {
        let at = |offset| Place::At(Expression::Register(register::RSP, offset));
        self.cfa == Cfa::Expression(Expression::Deref(register::RSP, 160))
            && self.return_address == at(168)
            && self.bp == at(120)
            && self.bx == at(128)
    }
}

/// Where a register is, in the terms of a rule.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Same,
    Lost,
    At(Base, i64),
}

impl Slot {
    /// The register is lost to a rule that counts from another base, or if
    /// the offset does not fit: that is no harm until someone needs it.
    fn saved(self, base: Base) -> Saved {
        let fits = |offset| Rule::new(Kind::Sp, 8, base, Saved::At(offset), Saved::Same).is_some();
        match self {
            Slot::Same => Saved::Same,
            Slot::At(from, offset) if from == base => match i32::try_from(offset) {
                Ok(offset) if fits(offset) => Saved::At(offset),
                _ => Saved::Lost,
            },
            Slot::At(..) | Slot::Lost => Saved::Lost,
        }
    }
}

/// What counts from the register that the CFA counts from counts from the CFA.
fn slot(place: Place, kind: Kind, offset: i64) -> Slot {
    let (register, at) = match place {
        // The ABI: functions keep these registers.
        Place::Unspecified | Place::Same => return Slot::Same,
        Place::Cfa(at) => return Slot::At(Base::Cfa, at),
        Place::At(Expression::Register(register, at)) => (register, at),
        Place::At(_) | Place::Undefined | Place::Elsewhere => return Slot::Lost,
    };
    match (register, kind) {
        (register::RBP, Kind::Bp) | (register::RSP, Kind::Sp) => {
            Slot::At(Base::Cfa, at.saturating_sub(offset))
        }
        (register::RBP, _) => Slot::At(Base::Bp, at),
        (register::RSP, _) => Slot::At(Base::Sp, at),
        _ => Slot::Lost,
    }
}

/// Instructions that are being run.
pub struct Program<'a, S> {
    section: &'a S,
    common: &'a Common,
    state: State,
    remembered: [State; MAX_REMEMBERED],
    depth: usize,
}

impl<'a, S> Program<'a, S> {
    /// A program that begins with what the CIE says.
    pub fn new(section: &'a S, common: &'a Common) -> Self {
        Program {
            section,
            common,
            state: common.initial,
            remembered: [State::UNKNOWN; MAX_REMEMBERED],
            depth: 0,
        }
    }

    /// Runs the instructions; `row` learns for which addresses, from `start`
    /// on, which state holds. The last holds until further notice.
    ///
    /// # Errors
    /// Fails at the first instruction that makes no sense.
    pub fn run<'d>(
        &mut self,
        mut instructions: CallFrameInstructionIter<'_, Reader<'d>>,
        start: u64,
        mut row: impl FnMut(u64, u64, &State),
    ) -> Result<(u64, State), Malformed>
    where
        S: UnwindSection<Reader<'d>>,
    {
        use CallFrameInstruction as I;
        let mut at = start;
        while let Some(instruction) = instructions.next()? {
            let next = match instruction {
                I::SetLoc { address } => Some(address),
                I::AdvanceLoc { delta } => u64::from(delta)
                    .checked_mul(self.common.code_alignment)
                    .and_then(|delta| at.checked_add(delta)),
                other => {
                    self.apply(&other)?;
                    continue;
                }
            };
            let next = next.filter(|next| *next >= at).ok_or(Malformed)?;
            row(at, next, &self.state);
            at = next;
        }
        Ok((at, self.state))
    }

    fn apply<'d>(&mut self, instruction: &CallFrameInstruction<usize>) -> Result<(), Malformed>
    where
        S: UnwindSection<Reader<'d>>,
    {
        use CallFrameInstruction as I;
        match *instruction {
            I::DefCfa { register, offset } => {
                self.state.cfa = Cfa::Register(register.0, signed(offset)?);
            }
            I::DefCfaSf {
                register,
                factored_offset,
            } => {
                self.state.cfa = Cfa::Register(register.0, self.factored(factored_offset)?);
            }
            I::DefCfaRegister { register } => {
                self.state.cfa = match self.state.cfa {
                    Cfa::Register(_, offset) => Cfa::Register(register.0, offset),
                    Cfa::Expression(_) => Cfa::Expression(Expression::Other),
                };
            }
            I::DefCfaOffset { offset } => self.state.set_offset(signed(offset)?),
            I::DefCfaOffsetSf { factored_offset } => {
                self.state.set_offset(self.factored(factored_offset)?);
            }
            I::DefCfaExpression { expression } => {
                self.state.cfa = Cfa::Expression(self.expression(expression)?);
            }
            I::Undefined { register } => self.state.set(register, Place::Undefined),
            I::SameValue { register } => self.state.set(register, Place::Same),
            I::Offset {
                register,
                factored_offset,
            } => {
                let offset = self.factored(signed(factored_offset)?)?;
                self.state.set(register, Place::Cfa(offset));
            }
            I::OffsetExtendedSf {
                register,
                factored_offset,
            } => {
                let offset = self.factored(factored_offset)?;
                self.state.set(register, Place::Cfa(offset));
            }
            I::Expression {
                register,
                expression,
            } => {
                if self.state.place(register).is_some() {
                    let place = Place::At(self.expression(expression)?);
                    self.state.set(register, place);
                }
            }
            I::Restore { register } => {
                let mut initial = self.common.initial;
                if let Some(place) = initial.place(register) {
                    self.state.set(register, *place);
                }
            }
            I::RememberState => {
                *self.remembered.get_mut(self.depth).ok_or(Malformed)? = self.state;
                self.depth += 1;
            }
            I::RestoreState => {
                self.depth = self.depth.checked_sub(1).ok_or(Malformed)?;
                self.state = self.remembered[self.depth];
            }
            I::ValOffset { register, .. }
            | I::ValOffsetSf { register, .. }
            | I::ValExpression { register, .. }
            | I::Register {
                dest_register: register,
                ..
            } => {
                self.state.set(register, Place::Elsewhere);
            }
            I::ArgsSize { .. } | I::Nop => {}
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn factored(&self, offset: i64) -> Result<i64, Malformed> {
        offset
            .checked_mul(self.common.data_alignment)
            .ok_or(Malformed)
    }

    fn expression<'d>(&self, expression: UnwindExpression<usize>) -> Result<Expression, Malformed>
    where
        S: UnwindSection<Reader<'d>>,
    {
        let bytes = expression.get(self.section)?;
        Ok(Expression::of(bytes.0.slice()))
    }
}

fn signed(number: u64) -> Result<i64, Malformed> {
    i64::try_from(number).map_err(|_| Malformed)
}
