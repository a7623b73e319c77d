//! A place that can be probed, the site that is made of it, and the slot's image.

use alloc::boxed::Box;

use super::engine::Engine;
use super::error::PointError;
use super::rewritten::Rewritten;
use super::site::{Resumption, Site};
use super::user::UserPlace;
use crate::host::{Function, Host, Patch, Prohibited, Special, Watchpoint};
use crate::insn::{self, Insn, MAX_LEN, Refusal, Resume, Shaded, Shadow};
use crate::mem::{self, OutOfMemory};
use crate::text::slot::{Area, Slot};
use crate::text::transaction::INT3;

/// A place that can be probed: proven to be an instruction that this engine can resume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) address: u64,
    /// What it is in.
    pub(crate) function: Function,
    pub(crate) insn: Insn,
    /// The instruction before it casts a shadow, in which it is when it was reached from there.
    may_be_shaded: bool,
    /// How the host wants it to be probed.
    pub(crate) special: Special,
    /// The instruction behind it, if that has to be carried out with it.
    next: Option<(Insn, Shaded)>,
}

/// Why a site was not made.
#[derive(Debug)]
pub(crate) enum StageError {
    NoMemory,
    Point(PointError),
}

impl From<OutOfMemory> for StageError {
    fn from(_: OutOfMemory) -> Self {
        StageError::NoMemory
    }
}

impl From<PointError> for StageError {
    fn from(error: PointError) -> Self {
        StageError::Point(error)
    }
}

/// Where a point goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spot {
    /// Into text.
    Text(Place),
    /// Into text, where the calls begin whose returns it is about.
    Return {
        /// The first instruction.
        place: Place,
        /// The point of the same program that is there too, if there is one.
        entry: Option<usize>,
    },
    /// Into the debug registers.
    Watch(Watchpoint),
    /// Into a file that processes run.
    User(UserPlace),
}

impl Spot {
    pub(crate) fn address(&self) -> u64 {
        match self {
            Spot::Text(place) | Spot::Return { place, .. } => place.address,
            Spot::Watch(what) => what.address(),
            Spot::User(place) => place.offset,
        }
    }

    /// The place in text of the kernel, if it is one.
    pub(crate) fn text(&self) -> Option<&Place> {
        match self {
            Spot::Text(place) | Spot::Return { place, .. } => Some(place),
            Spot::Watch(_) | Spot::User(_) => None,
        }
    }

    /// The second part of the [order](Self::order) of one on returns.
    pub(crate) const RETURNS: u8 = 1;

    /// Is it on returns?
    pub(crate) fn is_return(&self) -> bool {
        matches!(self, Spot::Return { .. } | Spot::User(UserPlace { returns: true, .. }))
    }

    /// The place in text of the kernel that a program's point is the first one at.
    pub(crate) fn first_text(&self) -> Option<&Place> {
        self.text()
            .filter(|_| !matches!(self, Spot::Return { entry: Some(_), .. }))
    }

    /// Two points of a program that have the same are at the same place.
    pub(crate) fn order(&self) -> (u64, u8, u8) {
        match self {
            Spot::Text(place) => (place.address, 0, 0),
            Spot::Return { place, .. } => (place.address, Self::RETURNS, 0),
            Spot::Watch(what) => (what.address(), what.kind() as u8, what.len()),
            Spot::User(place) => (place.offset, place.returns.into(), 0),
        }
    }
}

impl<H: Host> Engine<H> {
    /// The place of the instruction at `offset` of a function's text, and behind `before`: it must be one that can be resumed.
    pub(crate) fn place(
        &self,
        function: Function,
        text: &[u8],
        offset: usize,
        before: Option<&Insn>,
        (insn, special): (Insn, Special),
    ) -> Result<Place, PointError> {
        let address = function.start + offset as u64;
        let refused = |refusal| PointError::Instruction {
            refusal,
            bytes: first_bytes(text.get(offset..).unwrap_or(&[])),
        };
        if special == Special::Rewritten && Rewritten::new(insn.bytes()).is_none() {
            return Err(PointError::Prohibited(Prohibited::JumpLabel));
        }
        let next = match resume_of(&insn, special).map_err(refused)? {
            Resume::CopyWithNext(shadow) => Some(self.shaded_at(function, text, offset + insn.len(), shadow)),
            Resume::Copy | Resume::CopyWaiting | Resume::Emulate(_) | Resume::Step(_) => None,
        };
        Ok(Place {
            address,
            function,
            insn,
            special,
            may_be_shaded: match before {
                Some(before) => before.shadow().is_some(),
                None => self.ends_in_shadow(address),
            },
            next: next.transpose().map_err(refused)?,
        })
    }

    /// Do the bytes in front of a function look like an instruction that casts a shadow? Code may fall through from there. It does no
    /// harm if they are something else.
    fn ends_in_shadow(&self, start: u64) -> bool {
        const MOV_SS: u8 = 0x8e;
        let mut before = [0; 2];
        self.host().read(start.wrapping_sub(2), &mut before).is_ok()
            && (before[1] == STI || (before[0] == MOV_SS && before[1] & 0x38 == 0x10))
    }

    /// The instruction at `offset` of a function, in the shadow of the one before it. Its text must be as safe from being changed
    /// as that of a place that can be probed, because a copy of it is made.
    fn shaded_at(
        &self,
        function: Function,
        text: &[u8],
        offset: usize,
        shadow: Shadow,
    ) -> Result<(Insn, Shaded), Refusal> {
        let address = function.start + offset as u64;
        let mut beyond = [0; MAX_LEN];
        let bytes = match self.host().probeable(address) {
            Ok(found) if found == function => text.get(offset..).unwrap_or(&[]),
            Ok(found) if found.start == address => match self.site(address) {
                Some(site) => site.insn.bytes(),
                None => {
                    let len = (found.end - found.start).min(MAX_LEN as u64) as usize;
                    let beyond = beyond.get_mut(..len).unwrap_or(&mut []);
                    self.host()
                        .read(address, beyond)
                        .map_err(|_| Refusal::InterruptShadow)?;
                    beyond
                }
            },
            _ => return Err(Refusal::InterruptShadow),
        };
        let insn = Insn::decode(bytes).map_err(|_| Refusal::InterruptShadow)?;
        Ok((insn, insn.shaded(shadow)?))
    }

    /// Makes the site of a place, with the image of its slot.
    pub(crate) fn stage(&self, place: &Place, slot: Slot) -> Result<(Box<Site>, Patch), StageError> {
        let insn = &place.insn;
        let start = self.slots.address(slot);
        let refused = |refusal| PointError::Instruction {
            refusal,
            bytes: first_bytes(insn.bytes()),
        };
        let resume = resume_of(insn, place.special).map_err(refused)?;
        let mut image = Image::new(start);
        let area = self.slots.area_for(place.address);
        let shades = matches!(resume, Resume::CopyWithNext(Shadow::Interrupts));
        let may_be_shaded = place.may_be_shaded && !shades && area == Area::Main;
        // What makes a shadow for the copy. Code in ring 3 does not let interrupts in.
        if resume == Resume::CopyWaiting || may_be_shaded {
            image.push(&[STI])?;
        }
        let at = image.len;
        match resume {
            // Without the prefixes it may have.
            Resume::CopyWithNext(Shadow::Interrupts) => image.push(&[STI])?,
            _ => image.push_copy(insn, place.address)?,
        }
        let next_address = place.address + insn.len() as u64;
        let mut shaded = None;
        if let Some((next, how)) = place.next {
            let at = image.len;
            let copy = start + at as u64;
            image.push_copy(&next, next_address)?;
            let resumption = match how {
                Shaded::Copy => Resumption::Copied { slot: copy },
                Shaded::Emulate(emulation) => Resumption::Emulated {
                    emulation,
                    slot: copy,
                    fallback: next.step().ok(),
                },
                Shaded::Step(kind) => Resumption::Stepped { slot: copy, kind },
            };
            let mut site = mem::boxed(Site::new(self.next_site(), next_address, next, resumption, slot, area))?;
            site.at = at as u8;
            shaded = Some(site);
        }
        let behind = shaded
            .as_ref()
            .map_or(next_address, |shaded| shaded.address + shaded.insn.len() as u64);
        image.push_jump(behind)?;
        let copy = start + at as u64;
        let resumption = match resume {
            _ if place.special == Special::Rewritten => Resumption::Rewritten { slot: copy },
            _ if place.special == Special::Reported && insn.raises() => Resumption::Reported,
            Resume::Copy | Resume::CopyWaiting if at != 0 => Resumption::CopiedBehindSti { slot: start },
            Resume::Copy | Resume::CopyWaiting => Resumption::Copied { slot: start },
            Resume::CopyWithNext(shadow) => Resumption::Shadowing { slot: start, shadow },
            Resume::Emulate(emulation) => Resumption::Emulated {
                emulation,
                slot: copy,
                fallback: insn.step().ok(),
            },
            Resume::Step(kind) => Resumption::Stepped { slot: copy, kind },
        };
        let mut site = mem::boxed(Site::new(
            self.next_site(),
            place.address,
            *insn,
            resumption,
            slot,
            area,
        ))?;
        site.at = at as u8;
        site.shaded = shaded;
        if place.special == Special::Rewritten {
            site.rewritten = Rewritten::new(insn.bytes());
        }
        Ok((site, Patch::image(start, image.bytes)))
    }
}

/// How an instruction is carried out after a hit. One that is left alone has a copy that nobody runs.
fn resume_of(insn: &Insn, special: Special) -> Result<Resume, Refusal> {
    if special == Special::Reported && insn.raises() {
        return Ok(Resume::Copy);
    }
    insn.resume()
}

/// `sti`.
const STI: u8 = 0xfb;

/// The bytes of a slot, as they are put together. What is not set traps, so that a stray CPU is caught at once.
struct Image {
    start: u64,
    bytes: [u8; Patch::MAX],
    len: usize,
}

impl Image {
    fn new(start: u64) -> Self {
        Image {
            start,
            bytes: [INT3; Patch::MAX],
            len: 0,
        }
    }

    /// Only instructions with many redundant prefixes do not fit.
    fn push(&mut self, bytes: &[u8]) -> Result<(), PointError> {
        let end = self.len + bytes.len();
        let place = self.bytes.get_mut(self.len..end).ok_or(PointError::Instruction {
            refusal: Refusal::InterruptShadow,
            bytes: first_bytes(bytes),
        })?;
        place.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// A copy of the instruction at `from`.
    fn push_copy(&mut self, insn: &Insn, from: u64) -> Result<(), PointError> {
        let to = self.start + self.len as u64;
        let copy = insn.relocate(from, to).map_err(|_| PointError::OutOfReach)?;
        self.push(copy.bytes())
    }

    fn push_jump(&mut self, to: u64) -> Result<(), PointError> {
        let from = self.start + self.len as u64;
        self.push(&insn::jump(from, to).map_err(|_| PointError::OutOfReach)?)
    }
}

/// Up to eight bytes as a number, the first lowest.
pub(super) fn first_bytes(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}
