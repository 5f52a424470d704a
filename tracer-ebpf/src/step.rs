//! One step up the stack: a rule, the registers and a reader of memory give
//! the caller's registers. Pure, so that tests and the kernel run the same.

use crate::limits::USER_END;
use crate::rule::{BX, Base, Rule, Slot};
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

    /// Where the thread's own variables are: the base of `fs`; 0 if that is not known.
    fn thread_pointer(&self) -> u64 {
        0
    }
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
        self.rule.set(rule.anywhere().word());
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

    /// Goes up to a caller on another stack: see [`Rule::go_call`],
    /// [`Rule::go_callback`] and [`Rule::go_switch`]. Go code's frames count from the stack pointer alone,
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
        } else if self.rule().is_go_switch() {
            self.switched_from(memory)?
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

    /// Where the return address of a switch to the thread's stack is.
    #[inline(always)]
    fn switched_from(&mut self, memory: &mut impl Memory) -> Result<u64, StackEnd> {
        self.left_at.set(self.words[SP].get());
        let (machine, stack) = self.rule().switched();
        let current = memory.thread_pointer();
        let current = read(current.wrapping_add(self.rule().bp().offset()), memory)?;
        let machine = read(current.wrapping_add(machine), memory)?;
        let running = read(machine.wrapping_add(self.rule().bx().offset()), memory)?;
        read(running.wrapping_add(stack), memory)
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
mod tests;
