//! Hits in user space, which a facility of the host delivers.

use super::breakpoint::Where;
use crate::frame::TrapFrame;
use crate::host::Host;
use crate::probe::{Engine, count};

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
            self.fire_without_site(place, probe, &mut hit, frame);
        }
    }

    /// A call at the place that was attached with this number will return without a [hit](Self::on_user_hit): it is counted as missed.
    pub fn on_user_return_lost(&self, number: u64) {
        let probes = self.user_sites.get(number).map(|site| site.chain.iter());
        for probe in probes.into_iter().flatten() {
            count(&probe.counts.missed);
        }
    }
}
