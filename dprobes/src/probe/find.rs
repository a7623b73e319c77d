//! From the addresses that a program asks for to places that can be probed: every check, for all of them in one pass.
//!
//! The addresses are sorted, so that the host walks its tables once, and each function is read and decoded once, whether one of
//! its instructions is asked for or all.

use alloc::vec::Vec;

use super::engine::Engine;
use super::error::PointError;
use super::place::{Place, first_bytes};
use super::rewritten::Unchanging;
use crate::host::{Candidate, Function, Host, Prohibited, Special};
use crate::insn::{BoundaryError, Insn, Instructions, MAX_LEN};
use crate::mem::{self, OutOfMemory};
use crate::sort;
use crate::text::transaction::INT3;

/// Functions are not decoded beyond this, so that a boundary farther from their start cannot be established.
const FUNCTION_MAX: u64 = 1 << 20;

/// Where an indirect call must land.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Bytes of the function tracer's NOP.
const FTRACE_LEN: u64 = 5;

/// A point that asks for a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'o> {
    /// The address it asks for.
    pub(crate) address: u64,
    /// The bytes it expects there.
    pub(crate) expected: &'o [u8],
}

/// What was found for a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// The address it asked for.
    pub(crate) requested: u64,
    /// Where it goes, or why not.
    pub(crate) place: Result<Place, PointError>,
}

/// A request on its way.
struct Search<'o> {
    request: Request<'o>,
    /// Where the probe goes: the address asked for, or one behind it.
    address: u64,
    /// It is behind the function tracer's NOP, for which the request must have asked, or for the `endbr64` before that.
    behind_ftrace: bool,
    /// How the host wants it to be probed there.
    special: Special,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The host is to be asked about the address.
    Ask,
    /// The same; it is behind the function tracer's NOP.
    AskBehindFtrace,
    /// It may be probed if it is an instruction of this function.
    Inside(Function),
    Refused(PointError),
}

/// Indices of searches, in the order of their addresses.
struct Order(Vec<(u64, usize)>);

impl Order {
    fn new(searches: &[Search<'_>]) -> Result<Self, OutOfMemory> {
        Ok(Order(mem::vec(searches.len())?))
    }

    /// Has those searches that are wanted.
    fn choose(&mut self, searches: &[Search<'_>], wanted: impl Fn(&Search<'_>) -> bool) {
        self.0.clear();
        let chosen = searches.iter().enumerate().filter(|(_, search)| wanted(search));
        // As many as there was room made for, at most.
        self.0.extend(chosen.map(|(index, search)| (search.address, index)));
        sort::by_key(&mut self.0, |entry| *entry);
    }
}

impl<H: Host> Engine<H> {
    /// Checks addresses: allowed, on an instruction boundary, the expected bytes, an instruction that can be resumed. The findings are in
    /// the order of the requests.
    pub(crate) fn find(&self, requests: &[Request<'_>]) -> Result<Vec<Found>, OutOfMemory> {
        let mut searches = mem::vec(requests.len())?;
        searches.extend(requests.iter().map(|&request| Search {
            request,
            address: request.address,
            behind_ftrace: false,
            special: Special::None,
            step: Step::Ask,
        }));
        let mut order = Order::new(&searches)?;
        self.ask(&mut searches, &mut order)?;

        let mut findings = mem::vec(searches.len())?;
        findings.extend(searches.iter().map(|search| Found {
            requested: search.request.address,
            place: Err(match search.step {
                Step::Refused(error) => error,
                _ => PointError::Prohibited(Prohibited::NoFunction),
            }),
        }));
        order.choose(&searches, |search| matches!(search.step, Step::Inside(_)));
        let step = |entry: &(u64, usize)| searches.get(entry.1).map(|search| search.step);
        let mut text = Vec::new();
        for together in order.0.chunk_by(|one, next| step(one) == step(next)) {
            let (Some(Some(Step::Inside(function))), Some((last, _))) = (together.first().map(step), together.last())
            else {
                continue;
            };
            let read = self.original_text(function, *last, &mut text)?;
            let mut walk = Walk::new(function.start, &text);
            for (_, index) in together {
                if let (Some(found), Some(search)) = (findings.get_mut(*index), searches.get(*index)) {
                    found.place = read.and_then(|()| self.check(search, function, &mut walk));
                }
            }
        }
        Ok(findings)
    }

    /// Asks the host about every search, until each is inside a function or refused.
    ///
    /// An entry probe goes behind `endbr64`, where an indirect call must land, and behind the function tracer's NOP, which
    /// is not ours to patch. The host is asked about the place behind it too.
    fn ask(&self, searches: &mut [Search<'_>], order: &mut Order) -> Result<(), OutOfMemory> {
        let mut candidates = mem::vec(searches.len())?;
        loop {
            order.choose(searches, |search| search.asks());
            if order.0.is_empty() {
                return Ok(());
            }
            candidates.clear();
            candidates.extend(order.0.iter().map(|(address, _)| Candidate::new(*address)));
            self.host().probeable_batch(&mut candidates);
            for ((_, index), candidate) in order.0.iter().zip(&candidates) {
                if let Some(search) = searches.get_mut(*index) {
                    search.special = candidate.special();
                    self.follow(search, candidate.answered());
                }
            }
        }
    }

    /// Takes a search on by what the host has answered.
    fn follow(&self, search: &mut Search<'_>, answer: Result<Function, Prohibited>) {
        let prohibited = |why| Step::Refused(PointError::Prohibited(why));
        search.step = match (search.step, answer) {
            (Step::Ask, Ok(function)) if search.address == function.start => {
                let mut bytes = [0; ENDBR64.len()];
                match self.host().read(search.address, &mut bytes) {
                    Ok(()) if bytes == ENDBR64 => {
                        search.address += ENDBR64.len() as u64;
                        Step::Ask
                    }
                    Ok(()) => Step::Inside(function),
                    Err(_) => Step::Refused(PointError::Unreadable),
                }
            }
            (_, Ok(function)) => Step::Inside(function),
            (Step::Ask, Err(Prohibited::Ftrace)) => {
                search.address = search.address.wrapping_add(FTRACE_LEN);
                search.behind_ftrace = true;
                Step::AskBehindFtrace
            }
            (_, Err(why)) => prohibited(why),
        };
    }

    /// Checks a search inside a function, where the walk has not come beyond it.
    fn check(&self, search: &Search<'_>, function: Function, walk: &mut Walk<'_>) -> Result<Place, PointError> {
        let expected = search.request.expected;
        let offset = search.address.checked_sub(function.start).map(|offset| offset as usize);
        let offset = offset
            .filter(|offset| *offset < walk.text.len())
            .ok_or(PointError::Prohibited(Prohibited::NoFunction))?;
        let found = walk.to(offset);
        // The host says the same of the bytes inside of the NOP.
        let is_behind = |before: &Insn| before.len() as u64 == FTRACE_LEN;
        if search.behind_ftrace && !(found.is_ok() && walk.before.as_ref().is_some_and(is_behind)) {
            return Err(PointError::Prohibited(Prohibited::Ftrace));
        }
        let insn = found?;
        let bytes = walk.text.get(offset..).unwrap_or(&[]);
        let found = bytes.get(..expected.len()).unwrap_or(bytes);
        if found != expected {
            let (len, expected, found) = (expected.len(), first_bytes(expected), first_bytes(found));
            return Err(PointError::Opcode { len, expected, found });
        }
        let before = walk.before.as_ref();
        self.place(function, walk.text, offset, before, (insn, search.special))
    }

    /// Reads a function from its start to two instructions behind the last address of interest, without this engine's own breakpoints.
    pub(super) fn original_text(
        &self,
        function: Function,
        last: u64,
        text: &mut Vec<u8>,
    ) -> Result<Result<(), PointError>, OutOfMemory> {
        text.clear();
        let wanted = last.saturating_add(2 * MAX_LEN as u64).saturating_sub(function.start);
        let len = wanted
            .min(function.end.saturating_sub(function.start))
            .min(FUNCTION_MAX) as usize;
        text.try_reserve(len).map_err(|_| OutOfMemory)?;
        text.resize(len, 0);
        // While the host writes one it may have a breakpoint of its own there, from which on all would be taken for something else.
        let _unchanging = Unchanging::new(self.host());
        if self.host().read(function.start, text).is_err() {
            return Ok(Err(PointError::Unreadable));
        }
        for (at, byte) in (function.start..).zip(text.iter_mut()) {
            if *byte == INT3
                && let Some(site) = self.site(at)
            {
                *byte = site.current().bytes().first().copied().unwrap_or(INT3);
            }
        }
        Ok(Ok(()))
    }
}

impl Search<'_> {
    /// Is the host to be asked?
    fn asks(&self) -> bool {
        matches!(self.step, Step::Ask | Step::AskBehindFtrace)
    }
}

/// A walk over a function's instructions, which goes forwards only.
struct Walk<'t> {
    start: u64,
    text: &'t [u8],
    rest: Instructions<'t>,
    /// The instruction before the current one.
    before: Option<Insn>,
    /// Where it stands.
    current: Option<Result<(usize, Insn), BoundaryError>>,
}

impl<'t> Walk<'t> {
    fn new(start: u64, text: &'t [u8]) -> Self {
        let mut rest = Instructions::new(text);
        Walk {
            start,
            text,
            before: None,
            current: rest.next(),
            rest,
        }
    }

    /// Goes on to the instruction that begins at an offset, which is not below that of the call before.
    fn to(&mut self, offset: usize) -> Result<Insn, PointError> {
        let text = self.text;
        let undecodable = |at| PointError::Undecodable {
            bytes: first_bytes(text.get(at..).unwrap_or(&[])),
        };
        loop {
            let (at, insn) = match self.current {
                Some(Ok(item)) => item,
                Some(Err(error)) => return Err(undecodable(error.offset)),
                None => return Err(undecodable(offset)),
            };
            let end = at + insn.len();
            if at == offset {
                return Ok(insn);
            }
            if end > offset {
                return Err(PointError::NotBoundary {
                    instruction: self.start + at as u64,
                    next: self.start + end as u64,
                });
            }
            self.before = Some(insn);
            self.current = self.rest.next();
        }
    }
}
