//! Watchpoints: `watch = KIND LENGTH`, and what does not go with it.

use super::Parser;
use crate::diag::Reported;
use crate::problem::WatchProblem;
use crate::program::{Place, Probe, Spanned};
use crate::source::Span;
use dprobes::rpn::object::{Watch, WatchKind, Watchpoint};

/// What can be watched for, as it is written.
pub(crate) const WATCH_KINDS: [(&str, WatchKind); 4] = [
    ("execute", WatchKind::Execute),
    ("write", WatchKind::Write),
    ("rw", WatchKind::ReadWrite),
    ("io", WatchKind::Io),
];

impl Parser<'_> {
    /// What is watched for, if there are watchpoints of this length.
    pub(super) fn watch_of(&mut self, kind: WatchKind, len: u64, span: Span) -> Result<Watch, Reported> {
        u8::try_from(len)
            .ok()
            .and_then(|len| Watch::new(kind, len))
            .ok_or_else(|| self.session.report(span, WatchProblem::Length { kind, len }))
    }

    /// Checks the last probe, all items of which are known, if it is a watchpoint.
    pub(super) fn check_watch(&mut self) {
        let Some(probe) = self.probes.last_mut() else { return };
        let Some(watch) = probe.watch else { return };
        let mut problems = Vec::new();
        for (item, wrong) in [("opcode", true), ("logonfault", probe.attributes.log_on_fault)] {
            if let Some(span) = self.given.get(item).filter(|_| wrong) {
                let item = item.to_owned();
                let watch = watch.span;
                problems.push((*span, WatchProblem::Item { item, watch }));
            }
        }
        // What the header says of all probes is meant for those that can have it.
        probe.attributes.log_on_fault = false;
        problems.extend(location(probe, watch).map(|problem| (probe.span, problem)));
        for (span, problem) in problems {
            self.session.report(span, problem);
        }
    }
}

/// What is wrong with the location of a watchpoint, as far as it is known.
fn location(probe: &Probe, watch: Spanned<Watch>) -> Option<WatchProblem> {
    let Spanned { value, span } = watch;
    match probe.place.as_ref()? {
        Place::Absolute(address) => Watchpoint::new(*address, value)
            .err()
            .map(|error| WatchProblem::Address {
                address: *address,
                len: value.len(),
                error,
                watch: span,
            }),
        _ if value.kind() == WatchKind::Io => Some(WatchProblem::NotAPort { watch: span }),
        Place::Line(..) if value.kind() != WatchKind::Execute => Some(WatchProblem::Line { watch: span }),
        _ => None,
    }
}
