//! Listing: what there is, by calls back.

use core::ffi::{CStr, c_char, c_void};

use hooks::{ExitInfo, Name, Registry, State};

use crate::failure::gkhi_error;
use crate::host::Table;
use crate::instance::with_registry;

/// Where an exit is in its life.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum gkhi_state {
    /// Its hook is not there; it will not be armed when it comes.
    Waiting = 0,
    /// Its hook is not there; it will be armed when it comes.
    WaitingArmed = 1,
    /// On its hook, not called.
    Registered = 2,
    /// On its hook, called.
    Armed = 3,
}

/// A hook, for listing. Pointers are valid during the call that hands it over.
#[repr(C)]
pub struct gkhi_hook_status {
    /// Its name.
    pub name: *const c_char,
    /// Its prototype as text; empty when it is not checked.
    pub signature: *const c_char,
    /// Its kind, as `GKHI_KIND_*` and `GKHI_EXCLUSIVE`.
    pub kind: u32,
    /// How many arguments it has.
    pub arguments: u32,
    /// How many sites it has.
    pub sites: u32,
    /// How many of them jump now.
    pub jumping: u32,
    /// How many exits are registered on it.
    pub exits: u32,
    /// How many of them are armed.
    pub armed: u32,
    /// Passes that are in it now, about.
    pub inside: u64,
}

/// A site, for listing.
#[repr(C)]
pub struct gkhi_site_status {
    /// Its hook's name.
    pub hook: *const c_char,
    /// Where it is; 0: it is not patched.
    pub address: usize,
    /// Does it jump now?
    pub jumps: bool,
}

/// An exit, for listing.
#[repr(C)]
pub struct gkhi_exit_status {
    /// Its hook's name.
    pub hook: *const c_char,
    /// Its name.
    pub name: *const c_char,
    /// A `gkhi_state`.
    pub state: u32,
    /// Its place on the hook: 1 is called first. 0 while it waits.
    pub order: u32,
    /// Its options, as `GKHI_PRIORITY_FIRST` and so on.
    pub options: u32,
    /// Must be ignored.
    pub reserved: u32,
    /// Calls so far. Exact when the exit is not armed and no pass is in it.
    pub calls: u64,
    /// Of a watched exit: calls that took more than `watch` cycles.
    pub slow: u64,
    /// Of a watched exit: calls while another of its calls was running on the same CPU.
    pub nested: u64,
    /// Its limit in TSC cycles; 0 when it is not watched.
    pub watch: u64,
}

/// What `gkhi_visit` calls, under the host's lock. Functions that are null are not called.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gkhi_visitor {
    /// Handed to each function.
    pub context: *mut c_void,
    /// For each hook.
    pub hook: Option<unsafe extern "C" fn(context: *mut c_void, hook: *const gkhi_hook_status)>,
    /// For each of its sites, after it.
    pub site: Option<unsafe extern "C" fn(context: *mut c_void, site: *const gkhi_site_status)>,
    /// For each of its exits, after those, in their order; at the end for each exit that waits for its hook.
    pub exit: Option<unsafe extern "C" fn(context: *mut c_void, exit: *const gkhi_exit_status)>,
}

/// Lists everything. 0, or a negative `gkhi_error`.
///
/// # Safety
/// `visitor` points to a record whose functions may be called with its context; they call no function of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_visit(visitor: *const gkhi_visitor) -> i32 {
    // SAFETY: by this function's contract.
    let Some(visitor) = (unsafe { visitor.as_ref() }) else {
        return gkhi_error::Invalid.code();
    };
    // SAFETY: by this function's contract.
    let result = with_registry(|registry| unsafe { visit(registry, visitor) });
    result.map_or_else(gkhi_error::code, |()| 0)
}

/// # Safety
/// As [`gkhi_visit`].
unsafe fn visit(registry: &Registry<Table>, visitor: &gkhi_visitor) {
    for info in registry.hooks() {
        if let Some(function) = visitor.hook {
            let status = gkhi_hook_status {
                name: pointer(info.hook.name()),
                signature: pointer(info.hook.signature()),
                kind: info.hook.kind(),
                arguments: info.hook.arguments(),
                sites: narrow(info.sites),
                jumping: narrow(info.jumping),
                exits: narrow(info.exits),
                armed: narrow(info.armed),
                inside: info.inside,
            };
            // SAFETY: by this function's contract.
            unsafe { function(visitor.context, &raw const status) };
        }
        if let Some(function) = visitor.site {
            for site in registry.sites(info.hook) {
                let status = gkhi_site_status {
                    hook: pointer(info.hook.name()),
                    address: site.address().unwrap_or(0),
                    jumps: site.is_jump(),
                };
                // SAFETY: by this function's contract.
                unsafe { function(visitor.context, &raw const status) };
            }
        }
        if let Some(function) = visitor.exit {
            for exit in registry.exits(info.hook) {
                let status = status(&exit);
                // SAFETY: by this function's contract.
                unsafe { function(visitor.context, &raw const status) };
            }
        }
    }
    if let Some(function) = visitor.exit {
        for exit in registry.waiting() {
            let status = status(&exit);
            // SAFETY: by this function's contract.
            unsafe { function(visitor.context, &raw const status) };
        }
    }
}

/// Fills in the state of one exit. 0, or `GKHI_ERROR_NOT_REGISTERED`. The names in it are those given.
///
/// # Safety
/// 1. `hook` and `exit` are terminated strings.
/// 2. `found` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_find_exit(hook: *const c_char, exit: *const c_char, found: *mut gkhi_exit_status) -> i32 {
    // SAFETY: by requirement 1.
    let (hook_name, exit_name) = unsafe { (CStr::from_ptr(hook), CStr::from_ptr(exit)) };
    let result = with_registry(|registry| find(registry, hook_name, exit_name).map(|info| status(&info)));
    match result {
        Ok(Some(status)) => {
            let status = gkhi_exit_status {
                hook,
                name: exit,
                ..status
            };
            // SAFETY: by requirement 2.
            unsafe { found.write(status) };
            0
        }
        Ok(None) => gkhi_error::NotRegistered.code(),
        Err(error) => error.code(),
    }
}

/// The exit of this name on the hook of that name, or waiting for it.
pub(crate) fn find(registry: &Registry<Table>, hook: &CStr, exit: &CStr) -> Option<ExitInfo> {
    let is_it = |info: &ExitInfo| info.exit.name().to_c_str() == exit && info.exit.hook_name().to_c_str() == hook;
    let of_hook = registry
        .hooks()
        .find(|info| info.hook.name().to_c_str() == hook)
        .and_then(|info| registry.exits(info.hook).find(is_it));
    of_hook.or_else(|| registry.waiting().find(is_it))
}

fn status(info: &ExitInfo) -> gkhi_exit_status {
    gkhi_exit_status {
        hook: pointer(info.exit.hook_name()),
        name: pointer(info.exit.name()),
        state: match info.state {
            State::Waiting { armed: true } => gkhi_state::WaitingArmed,
            State::Waiting { armed: false } | State::Unregistered => gkhi_state::Waiting,
            State::Registered => gkhi_state::Registered,
            State::Armed => gkhi_state::Armed,
        } as u32,
        order: narrow(info.index),
        options: info.exit.options(),
        reserved: 0,
        calls: info.calls,
        slow: info.slow,
        nested: info.nested,
        watch: info.exit.watch_limit(),
    }
}

fn pointer(name: Name) -> *const c_char {
    name.to_c_str().as_ptr()
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
