//! In which order exits are called, and which may be armed together.

use crate::error::Error;
use crate::exit::{Exit, options};
use crate::name::Name;

/// What the rules look at: an exit, or a test's.
pub(crate) trait Ranked {
    fn name(&self) -> Name;
    fn options(&self) -> u32;
}

impl Ranked for Exit {
    fn name(&self) -> Name {
        self.name
    }
    fn options(&self) -> u32 {
        self.options
    }
}

/// Where a new exit goes among those that are there, in their order: before the exit of this index, or at the end.
///
/// First: at the head. Last: at the tail. LIFO: at the head, after a first one. Otherwise: at the tail, before a last one.
pub(crate) fn position<'e, E: Ranked + 'e>(
    new: &E,
    exclusive: bool,
    exits: impl Iterator<Item = &'e E>,
) -> Result<usize, Error> {
    let wanted = new.options();
    if wanted & !options::ALL != 0 || wanted & options::PRIORITY_FIRST != 0 && wanted & options::PRIORITY_LAST != 0 {
        return Err(Error::BadOptions { options: wanted });
    }
    let (mut first, mut last, mut count) = (None, None, 0);
    for exit in exits {
        if exclusive {
            return Err(Error::HookTaken { by: exit.name() });
        }
        if exit.name() == new.name() {
            return Err(Error::NameTaken { name: new.name() });
        }
        if exit.options() & options::PRIORITY_FIRST != 0 {
            first = Some(exit.name());
        }
        if exit.options() & options::PRIORITY_LAST != 0 {
            last = Some(exit.name());
        }
        count += 1;
    }
    match (first, last) {
        (Some(by), _) if wanted & options::PRIORITY_FIRST != 0 => Err(Error::FirstTaken { by }),
        (_, Some(by)) if wanted & options::PRIORITY_LAST != 0 => Err(Error::LastTaken { by }),
        _ if wanted & options::PRIORITY_FIRST != 0 => Ok(0),
        _ if wanted & options::PRIORITY_LAST != 0 => Ok(count),
        _ if wanted & options::QUEUE_LIFO != 0 => Ok(usize::from(first.is_some())),
        _ => Ok(count - usize::from(last.is_some())),
    }
}

/// May exactly these exits of a hook be armed together? `armed` is gone through several times.
pub(crate) fn coexist<'e, I>(armed: I) -> Result<(), Error>
where
    I: Iterator<Item = &'e Exit> + Clone,
{
    for exit in armed.clone() {
        for required in exit.requires.as_slice() {
            if !armed.clone().any(|other| other.name == *required) {
                return Err(Error::Requires {
                    exit: exit.name,
                    missing: *required,
                });
            }
        }
        for other in armed.clone().filter(|other| !core::ptr::eq(*other, exit)) {
            if exit.conflicts.as_slice().contains(&other.name) {
                return Err(Error::Conflict {
                    exit: exit.name,
                    with: other.name,
                });
            }
            if exit.has(options::EXCLUSIVE) {
                return Err(Error::Exclusive {
                    exit: exit.name,
                    with: other.name,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
