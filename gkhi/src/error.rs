//! Why the registry did nothing, with the facts.

use core::fmt;

use crate::name::Name;
use crate::text::CommitError;

/// Why nothing was done. Every error has a negative number for C, see [`code`](Error::code).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The hook is exclusive and has an exit.
    HookTaken {
        /// The exit that it has.
        by: Name,
    },
    /// Another exit on the hook is the first.
    FirstTaken {
        /// That exit.
        by: Name,
    },
    /// Another exit on the hook is the last.
    LastTaken {
        /// That exit.
        by: Name,
    },
    /// Another exit on the hook, or another hook, has this name.
    NameTaken {
        /// The name.
        name: Name,
    },
    /// Not a name: see [`Name::is_valid`].
    BadName {
        /// What was given.
        name: Name,
    },
    /// Bits that mean nothing, or first and last at once.
    BadOptions {
        /// What was given.
        options: u32,
    },
    /// The head of a hook has bits that mean nothing, or more than eight arguments.
    BadHook {
        /// The hook.
        hook: Name,
    },
    /// The exit has no function.
    NoFunction {
        /// The exit.
        exit: Name,
    },
    /// The exit was made for another prototype.
    WrongPrototype {
        /// The exit.
        exit: Name,
        /// What it was made for.
        expects: Name,
        /// What the hook declares.
        declared: Name,
    },
    /// The exit is registered already.
    AlreadyRegistered {
        /// The exit.
        exit: Name,
    },
    /// The exit is not registered.
    NotRegistered {
        /// The exit.
        exit: Name,
    },
    /// An exit that this one requires would not be armed.
    Requires {
        /// The exit.
        exit: Name,
        /// The one it requires.
        missing: Name,
    },
    /// Two exits of which one conflicts with the other would be armed.
    Conflict {
        /// The exit with the rule.
        exit: Name,
        /// The other one.
        with: Name,
    },
    /// Another exit would be armed besides an exclusive one.
    Exclusive {
        /// The exclusive exit.
        exit: Name,
        /// The other one.
        with: Name,
    },
    /// The text of a site could not be changed.
    Text {
        /// Whose site.
        hook: Name,
        /// Why.
        error: CommitError,
    },
    /// The caller is inside an exit of this hook, and would wait for itself. What could be done without waiting is done: the exit
    /// is disarmed.
    Inside {
        /// The hook.
        hook: Name,
    },
    /// The host has no memory for counters.
    NoMemory,
    /// The image, or another one with the same sections, is in a registry already.
    ImageKnown,
    /// The image is not in the registry.
    ImageUnknown,
    /// Another registry has the hook, or, with no name, uses the same [`Shared`](crate::Shared).
    OtherRegistry {
        /// The hook.
        hook: Name,
    },
}

impl Error {
    /// The number for C: negative, one for each kind. -1, -2 and -4 are those of the original GKHI.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Error::HookTaken { .. } => -1,
            Error::FirstTaken { .. } => -2,
            Error::LastTaken { .. } => -4,
            Error::NameTaken { .. } => -5,
            Error::BadName { .. } => -6,
            Error::BadOptions { .. } => -7,
            Error::BadHook { .. } => -8,
            Error::NoFunction { .. } => -9,
            Error::WrongPrototype { .. } => -10,
            Error::AlreadyRegistered { .. } => -11,
            Error::NotRegistered { .. } => -12,
            Error::Requires { .. } => -13,
            Error::Conflict { .. } => -14,
            Error::Exclusive { .. } => -15,
            Error::Inside { .. } => -16,
            Error::NoMemory => -17,
            Error::ImageKnown => -18,
            Error::ImageUnknown => -19,
            Error::OtherRegistry { .. } => -24,
            Error::Text { error, .. } => match error {
                CommitError::Changed { .. } => -20,
                CommitError::Unreadable { .. } => -21,
                CommitError::Unwritable { .. } => -22,
                CommitError::TooFar { .. } => -23,
                CommitError::Stuck { .. } => -25,
            },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::HookTaken { by } => write!(
                f,
                "the hook is exclusive, and {by} is registered on it: deregister that first"
            ),
            Error::FirstTaken { by } => write!(f, "{by} is the first exit already"),
            Error::LastTaken { by } => write!(f, "{by} is the last exit already"),
            Error::NameTaken { name } => write!(f, "the name {name} is taken"),
            Error::BadName { name } => write!(
                f,
                "{name:?} is not a name: 1 to 63 printable characters without space or slash"
            ),
            Error::BadOptions { options } => write!(f, "options {options:#x}: unknown bits, or first and last at once"),
            Error::BadHook { hook } => write!(f, "hook {hook}: unknown kind, or more than 8 arguments"),
            Error::NoFunction { exit } => write!(f, "exit {exit} has no function"),
            Error::WrongPrototype {
                exit,
                expects,
                declared,
            } => {
                write!(f, "exit {exit} was made for {expects}, but the hook is {declared}")
            }
            Error::AlreadyRegistered { exit } => write!(f, "exit {exit} is registered already"),
            Error::NotRegistered { exit } => write!(f, "exit {exit} is not registered"),
            Error::Requires { exit, missing } => write!(
                f,
                "exit {exit} requires {missing}: arm both in one set, or that one first"
            ),
            Error::Conflict { exit, with } => write!(f, "exit {exit} conflicts with {with}: disarm one of them"),
            Error::Exclusive { exit, with } => write!(f, "exit {exit} is exclusive, and {with} would be armed too"),
            Error::Text { hook, error } => write!(f, "a site of hook {hook}: {error}"),
            Error::Inside { hook } => write!(
                f,
                "called from inside an exit of hook {hook}, which would wait for itself"
            ),
            Error::NoMemory => write!(f, "no memory for counters"),
            Error::ImageKnown => write!(f, "the image is known already"),
            Error::ImageUnknown => write!(f, "the image is not known"),
            Error::OtherRegistry { hook } if hook.is_none() => {
                write!(f, "another registry uses the same shared part: give each its own")
            }
            Error::OtherRegistry { hook } => write!(f, "another registry has hook {hook}"),
        }
    }
}

impl core::error::Error for Error {}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitError::Changed { address, found } => {
                write!(
                    f,
                    "the bytes at {address:#x} are not as expected: something else has patched them ("
                )?;
                for byte in found.iter().take(5) {
                    write!(f, "{byte:02x}")?;
                }
                f.write_str(")")
            }
            CommitError::Unreadable { address } => write!(f, "no text at {address:#x}"),
            CommitError::Unwritable { address } => write!(f, "text at {address:#x} cannot be written"),
            CommitError::Stuck { address } => write!(
                f,
                "text at {address:#x} could be written no more, and is as it was, a jump or a breakpoint: all of them do nothing; the next change tries again"
            ),
            CommitError::TooFar { address } => write!(f, "a jump at {address:#x} does not reach its out-of-line code"),
        }
    }
}
