//! One step up the stack: a rule, the registers and a reader of memory give
//! the caller's registers. Pure, so that tests and the kernel run the same.

use crate::limits::USER_END;
use crate::rule::{Base, Rule, Slot};
use crate::stack::StackEnd;
use crate::volatile::Volatile;

/// The registers that unwinding needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// Instruction pointer; a return address in every frame but the first and
    /// those that a signal interrupted.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// rbp.
    pub bp: u64,
    /// rbx.
    pub bx: u64,
}

/// A register whose value is not known. No address: it is odd.
pub const LOST: u64 = u64::MAX;

/// Frame pointers are believed up to this many bytes above the stack pointer.
const FARTHEST_FRAME: u64 = 1 << 20;

/// Reads the target's memory.
pub trait Memory {
    /// The word at an address, which is a multiple of 8; `None` if it cannot
    /// be read.
    fn word(&mut self, address: u64) -> Option<u64>;

    /// The same if it costs nothing, because its surroundings were read.
    fn near(&self, address: u64) -> Option<u64>;
}

/// Plain frames are no larger than this.
const LARGEST_PLAIN: u64 = 1 << 20;

/// The caller's registers, if that is simple: a plain rule, and memory that is
/// at hand. Otherwise [`Frame::step`] finds them, or says why not.
#[inline(always)]
pub fn plain_step(rule: Rule, from: Registers, memory: &impl Memory) -> Option<Registers> {
    if !rule.is_plain() {
        return None;
    }
    // rbp or rsp, without a branch.
    let mask = (rule.register() as u64).wrapping_neg();
    let register = from.sp ^ ((from.sp ^ from.bp) & mask);
    let cfa = register.wrapping_add(rule.offset());
    // A lost register ends here too.
    if cfa.wrapping_sub(from.sp).wrapping_sub(8) > LARGEST_PLAIN || cfa & 7 != 0 {
        return None;
    }
    let ip = memory.near(cfa.wrapping_sub(8))?;
    let bp = plain_saved(rule.bp(), cfa, from.bp, memory)?;
    let bx = plain_saved(rule.bx(), cfa, from.bx, memory)?;
    Some(Registers {
        ip,
        sp: cfa,
        bp,
        bx,
    })
}

#[inline(always)]
fn plain_saved(slot: Slot, cfa: u64, register: u64, memory: &impl Memory) -> Option<u64> {
    if slot.is_same() {
        return Some(register);
    }
    if slot.is_lost() {
        return None;
    }
    memory.near(cfa.wrapping_add(slot.offset()))
}

/// A frame: its registers and its rule. Every part of a step reads what it
/// needs from here anew; see [`Volatile`].
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Frame {
    /// rsp, rbp, rbx and the CFA: the numbers that rules have for them.
    words: [Volatile; 4],
    ip: Volatile,
    rule: Volatile,
    /// Where the thread's own stack goes on, while a goroutine's is walked; 0 if
    /// that is not known.
    left_at: Volatile,
}

const SP: usize = Base::Sp as usize;
const BP: usize = Base::Bp as usize;
const BX: usize = 2;
const CFA: usize = Base::Cfa as usize;

impl Frame {
    /// The innermost frame.
    #[inline(always)]
    pub fn begin(&mut self, registers: Registers, rule: Rule) {
        self.words[SP].set(registers.sp);
        self.words[BP].set(registers.bp);
        self.words[BX].set(registers.bx);
        self.ip.set(registers.ip);
        self.set_rule(rule);
    }

    /// Nothing is known of other stacks than the one that it is on.
    #[inline(always)]
    pub fn on_one_stack(&mut self) {
        self.left_at.set(0);
    }

    /// The rule to go up by.
    #[inline(always)]
    pub fn rule(&self) -> Rule {
        Rule::from_word(self.rule.get())
    }

    /// Sets the rule to go up by.
    #[inline(always)]
    pub fn set_rule(&mut self, rule: Rule) {
        self.rule.set(rule.word());
    }

    /// The instruction pointer.
    #[inline(always)]
    pub fn ip(&self) -> u64 {
        self.ip.get()
    }

    /// The registers.
    pub fn registers(&self) -> Registers {
        Registers {
            ip: self.ip.get(),
            sp: self.words[SP].get(),
            bp: self.words[BP].get(),
            bx: self.words[BX].get(),
        }
    }

    /// Becomes the caller's frame, but for its rule.
    ///
    /// # Errors
    /// Says why the stack ends here.
    #[inline(always)]
    pub fn step(&mut self, memory: &mut impl Memory) -> Result<(), StackEnd> {
        if !self.rule().goes_on() {
            return Err(StackEnd::Unsupported);
        }
        if self.rule().is_crossing() {
            return self.cross(memory);
        }
        self.find_cfa()?;
        if self.rule().is_in_memory() {
            let cfa = read(self.words[CFA].get(), memory)?;
            self.words[CFA].set(cfa);
        }
        self.check_cfa()?;
        // In the order of their addresses, mostly: one window serves all.
        let base = self.words[self.rule().base()].get();
        let return_slot = self.return_slot();
        self.restore(BX, self.rule().bx(), base, memory)?;
        self.restore(BP, self.rule().bp(), base, memory)?;
        let ip = read(return_slot, memory)?;
        self.ip.set(ip);
        self.words[SP].set(self.words[CFA].get());
        Ok(())
    }

    /// Goes up to a caller on another stack: see [`Rule::go_call`] and
    /// [`Rule::go_callback`]. Go code's frames count from the stack pointer alone,
    /// and who calls it from C restores the other registers.
    #[inline(always)]
    fn cross(&mut self, memory: &mut impl Memory) -> Result<(), StackEnd> {
        let return_slot = if self.rule().is_go_call() {
            let sp = self.words[SP].get();
            let slot = sp.wrapping_add(self.rule().offset());
            let depth = read(slot, memory)?;
            let goroutine = read(slot.wrapping_add(8), memory)?;
            let top = if goroutine == 0 {
                depth
            } else {
                self.left_at.set(sp.wrapping_add(self.rule().bx().offset()));
                let end = read(goroutine.wrapping_add(Rule::GO_STACK_END), memory)?;
                end.wrapping_sub(depth)
            };
            top.wrapping_add(self.rule().bp().offset())
        } else {
            let left_at = self.left_at.get();
            if left_at == 0 {
                return Err(StackEnd::Unsupported);
            }
            self.left_at.set(0);
            let size = self.rule().offset();
            left_at.wrapping_add(size).wrapping_sub(8)
        };
        let ip = read(return_slot, memory)?;
        self.ip.set(ip);
        self.words[SP].set(return_slot.wrapping_add(8));
        self.words[BP].set(LOST);
        self.words[BX].set(LOST);
        Ok(())
    }

    /// The sum of register and offset.
    #[inline(always)]
    fn find_cfa(&mut self) -> Result<(), StackEnd> {
        let rule = self.rule();
        let register = self.words[rule.register()].get();
        if register == LOST {
            return Err(StackEnd::Unsupported);
        }
        self.words[CFA].set(register.wrapping_add(rule.offset()));
        if self.rule().is_plt() && self.ip.get() & 15 >= 11 {
            self.words[CFA].set(self.words[CFA].get().wrapping_add(8));
        }
        Ok(())
    }

    /// A caller's frame is further up the stack, but for that of a signal's,
    /// which may have a stack of its own.
    #[inline(always)]
    fn check_cfa(&self) -> Result<(), StackEnd> {
        let (cfa, sp) = (self.words[CFA].get(), self.words[SP].get());
        let is_frame_pointer = self.rule().is_frame_pointer();
        if is_frame_pointer && cfa.wrapping_sub(sp) > FARTHEST_FRAME {
            return Err(StackEnd::NoFramePointer);
        }
        if cfa >= USER_END || cfa & 7 != 0 || (cfa <= sp && !self.rule().is_signal()) {
            return Err(StackEnd::BadReturn);
        }
        Ok(())
    }

    #[inline(always)]
    fn return_slot(&self) -> u64 {
        if self.rule().is_signal() {
            return self.words[SP].get().wrapping_add(Rule::SIGNAL_IP);
        }
        if self.rule().is_interpreted() {
            return self.words[BP].get().wrapping_add(Rule::INTERPRETED_RETURN);
        }
        self.words[CFA].get().wrapping_sub(8)
    }

    #[inline(always)]
    fn restore(
        &mut self,
        register: usize,
        slot: Slot,
        base: u64,
        memory: &mut impl Memory,
    ) -> Result<(), StackEnd> {
        if slot.is_lost() {
            self.words[register].set(LOST);
        } else if !slot.is_same() {
            let value = read(base.wrapping_add(slot.offset()), memory)?;
            self.words[register].set(value);
        }
        Ok(())
    }
}

#[inline(always)]
fn read(address: u64, memory: &mut impl Memory) -> Result<u64, StackEnd> {
    if address & 7 != 0 || address >= USER_END {
        return Err(StackEnd::Unreadable);
    }
    memory.word(address).ok_or(StackEnd::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Kind, Saved};

    const STACK: u64 = 0x7000;

    /// Words from [`STACK`] up.
    struct Words(Vec<u64>);

    impl Memory for Words {
        fn word(&mut self, address: u64) -> Option<u64> {
            self.near(address)
        }

        fn near(&self, address: u64) -> Option<u64> {
            let index = address.checked_sub(STACK)? / 8;
            self.0.get(usize::try_from(index).unwrap()).copied()
        }
    }

    fn registers() -> Registers {
        Registers {
            ip: 0x40_1000,
            sp: STACK,
            bp: STACK + 32,
            bx: STACK + 48,
        }
    }

    fn step(rule: Rule, from: Registers, memory: &mut Words) -> Result<Registers, StackEnd> {
        let mut frame = Frame::default();
        frame.begin(from, rule);
        let result = frame.step(memory).map(|()| frame.registers());
        // The short cut is one only if it leads to the same place.
        if let Some(plain) = plain_step(rule, from, memory) {
            assert_eq!(result, Ok(plain));
        }
        result
    }

    fn numbered() -> Words {
        Words((0..64).map(|index| 1000 + index).collect())
    }

    fn go(kind: Kind, offset: i64, base: Base, bp: Saved, bx: Saved) -> Registers {
        let rule = Rule::new(kind, offset, base, bp, bx).unwrap();
        step(rule, registers(), &mut numbered()).unwrap()
    }

    #[test]
    fn a_frame_by_the_stack_pointer() {
        let up = go(Kind::Sp, 64, Base::Cfa, Saved::At(-16), Saved::At(-24));
        let rule = Rule::new(Kind::Sp, 64, Base::Cfa, Saved::At(-16), Saved::At(-24));
        assert_eq!(
            plain_step(rule.unwrap(), registers(), &numbered()),
            Some(up)
        );
        let expected = Registers {
            ip: 1007,
            sp: STACK + 64,
            bp: 1006,
            bx: 1005,
        };
        assert_eq!(up, expected);
    }

    #[test]
    fn a_frame_by_rbp_and_one_by_rbx() {
        let up = go(Kind::Bp, 16, Base::Cfa, Saved::At(-16), Saved::Same);
        assert_eq!((up.ip, up.sp, up.bp), (1005, STACK + 48, 1004));
        assert_eq!(up.bx, registers().bx);
        let up = go(Kind::Bx, 8, Base::Cfa, Saved::Same, Saved::Lost);
        assert_eq!((up.ip, up.sp, up.bx), (1006, STACK + 56, LOST));
    }

    #[test]
    fn a_realigned_frame() {
        let mut words = numbered();
        words.0[3] = STACK + 80;
        let rule = Rule::new(Kind::DerefBp, -8, Base::Bp, Saved::At(0), Saved::At(-16));
        let up = step(rule.unwrap(), registers(), &mut words).unwrap();
        assert_eq!((up.ip, up.sp), (1009, STACK + 80));
        assert_eq!((up.bp, up.bx), (1004, 1002));
    }

    #[test]
    fn a_signal_frame_gives_all_registers() {
        let mut words = numbered();
        words.0[20] = STACK - 0x1000;
        let up = step(Rule::SIGNAL, registers(), &mut words).unwrap();
        let expected = Registers {
            ip: 1021,
            sp: STACK - 0x1000,
            bp: 1015,
            bx: 1016,
        };
        assert_eq!(up, expected);
    }

    #[test]
    fn an_interpreted_frame_keeps_the_callers_stack_pointer() {
        let mut words = numbered();
        words.0[3] = STACK + 96;
        let up = step(Rule::INTERPRETED, registers(), &mut words).unwrap();
        assert_eq!((up.ip, up.sp), (1005, STACK + 96));
        assert_eq!((up.bp, up.bx), (1004, registers().bx));
    }

    #[test]
    fn the_call_stub_restores_what_java_code_overwrote() {
        let from = Registers {
            bp: STACK + 8 * 12,
            ..registers()
        };
        let up = step(Rule::CALL_STUB, from, &mut numbered()).unwrap();
        assert_eq!((up.ip, up.sp), (1013, STACK + 8 * 14));
        assert_eq!((up.bp, up.bx), (1012, 1005));
    }

    /// The thread's stack is from [`STACK`] on, the goroutine's from its 32nd word,
    /// and the goroutine itself is at the 20th.
    #[test]
    fn a_call_from_go_to_c_leads_to_the_goroutines_stack_and_a_callback_back() {
        let mut words = numbered();
        let goroutine = STACK + 8 * 20;
        words.0[5] = 8 * 4;
        words.0[6] = goroutine;
        words.0[21] = STACK + 8 * 40;
        let rule = Rule::go_call(40, 8, 64).unwrap();
        let mut frame = Frame::default();
        frame.begin(registers(), rule);
        frame.step(&mut words).unwrap();
        let up = frame.registers();
        assert_eq!((up.ip, up.sp), (1037, STACK + 8 * 38));
        assert_eq!((up.bp, up.bx), (LOST, LOST));
        frame.begin(up, Rule::go_callback(24).unwrap());
        frame.step(&mut words).unwrap();
        let back = frame.registers();
        assert_eq!((back.ip, back.sp), (1010, STACK + 64 + 24));
        assert_eq!((back.bp, back.bx), (LOST, LOST));
        frame.begin(back, Rule::go_callback(24).unwrap());
        assert_eq!(frame.step(&mut words), Err(StackEnd::Unsupported));
    }

    #[test]
    fn a_call_from_the_threads_own_stack_stays_there() {
        let mut words = numbered();
        words.0[0] = STACK + 8 * 9;
        words.0[1] = 0;
        let mut frame = Frame::default();
        frame.begin(registers(), Rule::go_call(0, 0, 16).unwrap());
        frame.step(&mut words).unwrap();
        let up = frame.registers();
        assert_eq!((up.ip, up.sp), (1009, STACK + 8 * 10));
        frame.begin(up, Rule::go_callback(24).unwrap());
        assert_eq!(frame.step(&mut words), Err(StackEnd::Unsupported));
    }

    #[test]
    fn a_stub_of_the_linkage_table_has_pushed_by_its_11th_byte() {
        let rule = Rule::new(Kind::Plt, 8, Base::Cfa, Saved::Same, Saved::Same).unwrap();
        for (ip, sp) in [(0x40_1006, STACK + 8), (0x40_100b, STACK + 16)] {
            let from = Registers { ip, ..registers() };
            assert_eq!(step(rule, from, &mut numbered()).unwrap().sp, sp);
        }
    }

    #[test]
    fn a_caller_is_never_below() {
        let down = Rule::new(Kind::Bp, -40, Base::Cfa, Saved::Same, Saved::Same).unwrap();
        assert_eq!(
            step(down, registers(), &mut numbered()),
            Err(StackEnd::BadReturn)
        );
    }

    #[test]
    fn a_register_that_is_lost_is_not_used() {
        let lost = Registers {
            bp: LOST,
            ..registers()
        };
        let rule = Rule::new(Kind::Bp, 16, Base::Cfa, Saved::Same, Saved::Same).unwrap();
        assert_eq!(
            step(rule, lost, &mut numbered()),
            Err(StackEnd::Unsupported)
        );
        assert_eq!(
            step(Rule::UNSUPPORTED, registers(), &mut numbered()),
            Err(StackEnd::Unsupported)
        );
    }

    #[test]
    fn an_implausible_frame_pointer_is_not_followed() {
        for (bp, end) in [
            (0, StackEnd::NoFramePointer),
            (STACK - 24, StackEnd::NoFramePointer),
            (STACK + 4, StackEnd::BadReturn),
            (STACK + (1 << 20), StackEnd::NoFramePointer),
            (LOST, StackEnd::Unsupported),
        ] {
            let from = Registers { bp, ..registers() };
            assert_eq!(step(Rule::FRAME_POINTER, from, &mut numbered()), Err(end));
        }
        let up = step(Rule::FRAME_POINTER, registers(), &mut numbered()).unwrap();
        assert_eq!((up.ip, up.sp, up.bp), (1005, STACK + 48, 1004));
    }

    #[test]
    fn memory_that_cannot_be_read_ends_the_stack() {
        let rule = Rule::new(Kind::Sp, 4096, Base::Cfa, Saved::Same, Saved::Same).unwrap();
        assert_eq!(
            step(rule, registers(), &mut numbered()),
            Err(StackEnd::Unreadable)
        );
    }
}
