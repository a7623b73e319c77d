//! Asking what inserting would say, without inserting.

use super::engine::Engine;
use super::find::{Found, Request};
use super::place::StageError;
use crate::host::Host;
use crate::mem::{self, OutOfMemory};
use crate::wire::PointCheck;

impl<H: Host> Engine<H> {
    /// Fills in, for each check in `checks`, what a probe at its address would come to. The answers are those of
    /// [`insert`](Self::insert), by the same checks in the same order; nothing is changed. An address that has a probe is
    /// answered as if it had none.
    ///
    /// # Errors
    /// [`OutOfMemory`]; then some are not filled in.
    pub fn check_points(&self, checks: &mut [PointCheck]) -> Result<(), OutOfMemory> {
        let _control = self.lock();
        let mut requests = mem::vec(checks.len())?;
        requests.extend(checks.iter().map(|check| Request {
            address: check.asked,
            expected: &[],
        }));
        for (check, found) in checks.iter_mut().zip(self.find(&requests)?) {
            let answer = match self.resumption(&found) {
                Ok((address, resume)) => PointCheck::accepted(address, resume),
                Err(StageError::Point(error)) => PointCheck::refused(&error.reply()),
                Err(StageError::NoMemory) => return Err(OutOfMemory),
            };
            *check = PointCheck {
                asked: check.asked,
                ..answer
            };
        }
        Ok(())
    }

    /// Where a probe would be, and the number of its resumption.
    fn resumption(&self, found: &Found) -> Result<(u64, u32), StageError> {
        let place = found.place?;
        let (site, _) = self.stage(&place, self.slots.any())?;
        Ok((place.address, site.resume_code()))
    }
}
