//! What a refused call tells.

use core::fmt::{self, Write};

use hooks::Error;
use hooks::text::CommitError;

/// Why a call did nothing. -1, -2 and -4 are those of the original GKHI.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum gkhi_error {
    /// The hook is exclusive and has an exit.
    HookTaken = -1,
    /// Another exit on the hook is the first.
    FirstTaken = -2,
    /// Another exit on the hook is the last.
    LastTaken = -4,
    /// Another exit on the hook, or another hook, has this name.
    NameTaken = -5,
    /// Not a name: 1 to 63 printable characters without space or slash.
    BadName = -6,
    /// Options that mean nothing, or first and last at once.
    BadOptions = -7,
    /// The head of a hook has bits that mean nothing, or more than eight arguments.
    BadHook = -8,
    /// The exit has no function.
    NoFunction = -9,
    /// The exit was made for another prototype.
    WrongPrototype = -10,
    /// The exit is registered already.
    AlreadyRegistered = -11,
    /// The exit is not registered.
    NotRegistered = -12,
    /// An exit that this one requires would not be armed.
    Requires = -13,
    /// Two exits of which one conflicts with the other would be armed.
    Conflict = -14,
    /// Another exit would be armed besides an exclusive one.
    Exclusive = -15,
    /// The caller is inside an exit of this hook, and would wait for itself. The exit is disarmed.
    Inside = -16,
    /// There is no memory for counters.
    NoMemory = -17,
    /// The image is in the registry already.
    ImageKnown = -18,
    /// The image is not in the registry.
    ImageUnknown = -19,
    /// The bytes of a site are not as expected: something else has patched them.
    TextChanged = -20,
    /// There is no text at a site.
    TextUnreadable = -21,
    /// The text of a site could not be written.
    TextUnwritable = -22,
    /// A site's jump does not reach its code out of line.
    TextTooFar = -23,
    /// The exit, hook or image belongs to another registry.
    OtherRegistry = -24,
    /// Text could not be written half way, nor put back: sites are breakpoints that are passed as dormant ones, until the next change.
    TextStuck = -25,
    /// The registry cannot be had: the caller may not sleep, or somebody has been waiting for an exit to end for too long, perhaps for
    /// the caller's.
    Busy = -64,
    /// There is no registry: [`gkhi_start`](crate::gkhi_start) has not succeeded.
    NotStarted = -65,
    /// A pointer is null, or the host table is not one that this library understands.
    Invalid = -66,
}

impl gkhi_error {
    /// Its number.
    pub(crate) const fn code(self) -> i32 {
        self as i32
    }

    const fn text(self) -> &'static str {
        match self {
            gkhi_error::Busy => "the registry is busy: the caller may not sleep, or an exit does not end",
            gkhi_error::NotStarted => "there is no registry",
            _ => "a pointer is null",
        }
    }
}

// The numbers are the registry's.
const _: () = {
    use core::ptr;
    let name = hooks::Name::NONE;
    let _ = ptr::null::<u8>();
    assert!(Error::HookTaken { by: name }.code() == gkhi_error::HookTaken as i32);
    assert!(Error::NameTaken { name }.code() == gkhi_error::NameTaken as i32);
    assert!(
        Error::WrongPrototype {
            exit: name,
            expects: name,
            declared: name
        }
        .code()
            == gkhi_error::WrongPrototype as i32
    );
    assert!(Error::NotRegistered { exit: name }.code() == gkhi_error::NotRegistered as i32);
    assert!(
        Error::Requires {
            exit: name,
            missing: name
        }
        .code()
            == gkhi_error::Requires as i32
    );
    assert!(Error::Inside { hook: name }.code() == gkhi_error::Inside as i32);
    assert!(Error::ImageKnown.code() == gkhi_error::ImageKnown as i32);
    assert!(Error::OtherRegistry { hook: name }.code() == gkhi_error::OtherRegistry as i32);
    let error = CommitError::TooFar { address: 0 };
    assert!(Error::Text { hook: name, error }.code() == gkhi_error::TextTooFar as i32);
    let error = CommitError::Stuck { address: 0 };
    assert!(Error::Text { hook: name, error }.code() == gkhi_error::TextStuck as i32);
};

/// The facts of a refusal.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gkhi_failure {
    /// A `gkhi_error`.
    pub error: i32,
    /// What was wrong, where, and what to do, in English: ASCII, terminated.
    pub message: [u8; 252],
}

impl gkhi_failure {
    /// Of the registry.
    pub(crate) fn of(error: &Error) -> Self {
        Self::new(error.code(), format_args!("{error}"))
    }

    /// Of this library.
    pub(crate) fn own(error: gkhi_error) -> Self {
        Self::new(error.code(), format_args!("{}", error.text()))
    }

    pub(crate) fn not_found(hook: &core::ffi::CStr, exit: &core::ffi::CStr) -> Self {
        Self::new(
            gkhi_error::NotRegistered.code(),
            format_args!("no exit {} is registered on hook {}", Ascii(exit), Ascii(hook)),
        )
    }

    fn new(error: i32, text: fmt::Arguments<'_>) -> Self {
        let mut message = Message::<252>::of(text);
        if let Some(last) = message.bytes.last_mut() {
            *last = 0;
        }
        gkhi_failure {
            error,
            message: message.bytes,
        }
    }
}

/// A C string that anybody may have written.
struct Ascii<'s>(&'s core::ffi::CStr);

impl fmt::Display for Ascii<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.to_bytes().escape_ascii())
    }
}

/// Text in an array; what does not fit is cut off.
pub(crate) struct Message<const N: usize> {
    pub(crate) bytes: [u8; N],
    pub(crate) len: usize,
}

impl<const N: usize> Message<N> {
    pub(crate) fn of(text: fmt::Arguments<'_>) -> Self {
        let mut message = Message { bytes: [0; N], len: 0 };
        // Writing to a `Message` cannot fail.
        let _ = message.write_fmt(text);
        message
    }
}

impl<const N: usize> Write for Message<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes.get_mut(self.len..).unwrap_or(&mut []);
        for (to, from) in free.iter_mut().zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}
