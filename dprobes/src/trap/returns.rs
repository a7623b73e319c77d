//! Calls of functions of the kernel, from their beginning to where they have returned to.

use super::breakpoint::Where;
use crate::frame::TrapFrame;
use crate::host::{CallWords, Host};
use crate::probe::{Engine, Hit, Probe, Site, count};

impl<H: Host> Engine<H> {
    /// A call that the host [follows](Host::follow_return) by this number has returned: runs the program of the probe, if it is still there. With interrupts
    /// off; `frame` has the registers with which the caller goes on, `rip` the address that the call has returned to, and `words` are those that
    /// the host was given when the call began. General registers may be changed, but for `rip` and `rsp`.
    ///
    /// Records are final at once.
    pub fn on_return(&self, number: u64, frame: &mut TrapFrame, words: &CallWords) {
        let Some(probe) = self.returns.get(number) else { return };
        let Some(cpu) = self.this_cpu() else { return };
        let Some(mut hit) = cpu.enter() else {
            count(&probe.counts.missed);
            return;
        };
        let place = Where {
            address: frame.rip,
            code: None,
            may_fault: false,
            site: None,
            from_user: false,
        };
        *hit.workspace().call_words() = *words;
        self.fire_without_site(place, probe, &mut hit, frame);
    }

    /// It is the turn of a probe on returns at the site where a call begins: has the host follow the call.
    #[inline(never)]
    pub(super) fn follow_call(&self, site: &Site, probe: &Probe, number: u64, hit: &mut Hit<'_>, frame: &TrapFrame) {
        if frame.rip != site.address || !probe.is_active() || number == 0 {
            // A program has sent the CPU elsewhere: there is no call. Or nobody wants to know of it.
            return;
        }
        if self.is_halted() {
            count(&probe.counts.suspended);
            return;
        }
        // The return address is where the CPU has put it, not where a program says that the stack is.
        let words = hit.words_of(probe);
        if frame.rsp != hit.stack_pointer() || !self.host().follow_return(number, frame, &words) {
            count(&probe.counts.unfollowed);
        }
    }
}
