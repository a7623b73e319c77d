//! Hits in user space, which a facility of the host delivers.

use super::breakpoint::Where;
use super::system::is_64_bit;
use crate::frame::TrapFrame;
use crate::host::Host;
use crate::probe::{Engine, Hit, Probe, UserSite, count};

impl<H: Host> Engine<H> {
    /// A process is about to execute the instruction at the place that was [attached](Host::attach_user) with this number: runs the programs
    /// there. With interrupts off, in the context of the process, and `frame` as it is going to continue with it: `rip` is the instruction's
    /// address. If a program has changed `rip` the instruction must not be carried out.
    ///
    /// Records are final at once.
    pub fn on_user_hit(&self, number: u64, frame: &mut TrapFrame) {
        let Some(site) = self.user_sites.get(number) else {
            return;
        };
        let Some(cpu) = self.this_cpu() else { return };
        let Some(mut hit) = cpu.enter() else {
            for probe in site.chain.iter() {
                count(&probe.counts.missed);
            }
            return;
        };
        let place = Where {
            address: frame.rip,
            code: site.code(),
            may_fault: false,
            site: None,
            from_user: true,
        };
        for probe in site.chain.iter() {
            if probe
                .loaded()
                .is_some_and(|loaded| loaded.program.keeps_for_calls(probe.point))
            {
                self.fire_in_call(place, site, probe, &mut hit, frame);
            } else {
                self.fire_without_site(place, probe, &mut hit, frame);
            }
        }
    }

    /// A hit of a probe that keeps something for the call which begins there, or has returned.
    fn fire_in_call(&self, place: Where<'_>, site: &UserSite, probe: &Probe, hit: &mut Hit<'_>, frame: &mut TrapFrame) {
        let (Some(loaded), Some(calls)) = (probe.loaded(), self.calls()) else {
            return;
        };
        let pointer = if is_64_bit(frame.cs) { 8 } else { 4 };
        let behind = if site.is_return() { pointer } else { 0 };
        let call = site.call(self.host().task().cookie, frame.rsp.wrapping_sub(behind), loaded);
        let kept = site.is_return().then(|| calls.end(call)).flatten();
        *hit.workspace().call_words() = kept.unwrap_or_default();
        self.fire_without_site(place, probe, hit, frame);
        let begins = !site.is_return() && frame.rip == place.address;
        if begins && !calls.begin(call, hit.workspace().call_words()) {
            count(&probe.counts.unfollowed);
        }
    }

    /// The task with this [cookie](crate::host::Task::cookie) has ended, and with it what it had under way. With interrupts off.
    pub fn on_task_ended(&self, cookie: u64) {
        if let Some(calls) = self.calls() {
            calls.task_ended(cookie);
        }
    }

    /// A call at the place that was attached with this number will return without a [hit](Self::on_user_hit): it is counted as unfollowed.
    pub fn on_user_return_lost(&self, number: u64) {
        let probes = self.user_sites.get(number).map(|site| site.chain.iter());
        for probe in probes.into_iter().flatten() {
            count(&probe.counts.unfollowed);
        }
    }
}
