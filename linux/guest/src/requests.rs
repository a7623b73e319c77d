//! Who may make requests, and requests that are wrong in form.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};

use dprobes::wire::{
    INTERFACE_VERSION, IOCTL_INSERT, IOCTL_QUERY, IOCTL_REMOVE, InsertRequest, QueryRequest, Reason, RemoveRequest,
};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::device::{Device, remove_request};
use crate::machine::{Module, symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("a_programs_breakpoint_is_its_own", a_programs_breakpoint_is_its_own),
    (
        "opening_needs_root_and_its_capability",
        opening_needs_root_and_its_capability,
    ),
    (
        "the_device_is_there_only_with_the_module",
        the_device_is_there_only_with_the_module,
    ),
    ("unknown_requests_are_named_so", unknown_requests_are_named_so),
    ("sizes_and_pointers_are_checked", sizes_and_pointers_are_checked),
    (
        "a_query_tells_the_version_and_the_count",
        a_query_tells_the_version_and_the_count,
    ),
    ("truncated_objects_are_refused", truncated_objects_are_refused),
    ("flipped_bits_do_no_harm", flipped_bits_do_no_harm),
    (
        "the_module_cannot_go_while_the_device_is_open",
        the_module_cannot_go_while_the_device_is_open,
    ),
];

const CHILD: &str = "DPROBES_TEST_CHILD";

/// What this program does when a test has started it to see how the device treats another user: tries to open it, and exits
/// with the errno.
pub fn as_a_child() -> Option<ExitCode> {
    let role = std::env::var(CHILD).ok()?;
    if role == "breakpoint" {
        // SAFETY: raises a signal, of which this process dies.
        unsafe { std::arch::asm!("int3") };
    }
    if role == "no-capability" {
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, none).expect("capabilities can be given up");
    }
    let code = Device::open().map_or_else(|error| error.raw_os_error().unwrap_or(255), |_| 0);
    Some(ExitCode::from(code as u8))
}

fn opening_as(role: &str, uid: u32) -> io::Result<Option<i32>> {
    let status = Command::new("/proc/self/exe").env(CHILD, role).uid(uid).status()?;
    Ok(status.code())
}

/// A breakpoint of a program is a signal to it, as if the module were not there.
fn a_programs_breakpoint_is_its_own() -> Outcome {
    let _module = Module::dprobes()?;
    let status = Command::new("/proc/self/exe").env(CHILD, "breakpoint").status()?;
    ensure!(status.signal() == Some(Signal::TRAP.as_raw()), "{status}");
    Ok(())
}

fn opening_needs_root_and_its_capability() -> Outcome {
    let _module = Module::dprobes()?;
    let expect = [
        ("root", 0, 0),
        ("somebody", 1000, Errno::ACCESS.raw_os_error()),
        // Root in name only: the file's mode lets it in, the module does not.
        ("no-capability", 0, Errno::PERM.raw_os_error()),
    ];
    for (role, uid, errno) in expect {
        let found = opening_as(role, uid)?;
        ensure!(found == Some(errno), "as {role}: errno {found:?} instead of {errno}");
    }
    Ok(())
}

fn the_device_is_there_only_with_the_module() -> Outcome {
    let missing = || Device::open().err().map(|error| error.kind());
    ensure!(
        missing() == Some(io::ErrorKind::NotFound),
        "without the module: {:?}",
        missing()
    );
    let module = Module::dprobes()?;
    ensure!(missing().is_none(), "with the module: {:?}", missing());
    module.unload()?;
    ensure!(
        missing() == Some(io::ErrorKind::NotFound),
        "after it is gone: {:?}",
        missing()
    );
    Ok(())
}

fn unknown_requests_are_named_so() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let mut nothing = [0u64; 32];
    // SAFETY: the kernel knows none of these, or takes them for one of ours, whose arguments are smaller than this.
    let results = unsafe {
        [
            device.request::<0, _>(&mut nothing),
            device.request::<{ IOCTL_INSERT + 0x10 }, _>(&mut nothing),
            device.request::<{ IOCTL_INSERT ^ 1 << 16 }, _>(&mut nothing),
        ]
    };
    ensure!(results == [Err(Errno::NOTTY); 3], "{results:?}");
    Ok(())
}

fn sizes_and_pointers_are_checked() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let good = program::at(1, &[symbol("do_sys_openat2")], program::COUNT);
    let address = good.as_ptr().expose_provenance() as u64;
    let inserts = [
        (address, 0, Errno::INVAL),
        (address, (1 << 25) + 1, Errno::INVAL),
        (address, u64::MAX, Errno::INVAL),
        (0, 64, Errno::FAULT),
        (u64::MAX - 8, 64, Errno::FAULT),
        (0xffff_8000_0000_0000, 64, Errno::FAULT),
        (0x0000_8000_0000_0000, 64, Errno::FAULT),
    ];
    for (object, length, expected) in inserts {
        let mut request = InsertRequest {
            object,
            length,
            ..InsertRequest::default()
        };
        // SAFETY: the kernel reads the object, if it can, and writes the reply.
        let result = unsafe { device.request::<IOCTL_INSERT, _>(&mut request) };
        ensure!(
            result == Err(expected),
            "inserting {length} bytes at {object:#x}: {result:?} instead of {expected}"
        );
    }
    let removals = [
        (
            RemoveRequest {
                all: 3,
                ..remove_request("kernel", 1)
            },
            Errno::INVAL,
        ),
        (
            RemoveRequest {
                keep: 5,
                ..remove_request("kernel", 1)
            },
            Errno::INVAL,
        ),
        (
            RemoveRequest {
                all: 1,
                keep: 1,
                ..remove_request("kernel", 1)
            },
            Errno::INVAL,
        ),
        (
            RemoveRequest {
                module: [b'x'; 64],
                ..remove_request("kernel", 1)
            },
            Errno::NOENT,
        ),
        (remove_request("kernel", 1), Errno::NOENT),
        (remove_request("", 1), Errno::NOENT),
    ];
    for (mut request, expected) in removals {
        // SAFETY: the kernel writes the request.
        let result = unsafe { device.request::<IOCTL_REMOVE, _>(&mut request) };
        ensure!(result == Err(expected), "removing: {result:?} instead of {expected}");
    }
    device.insert(&good)?;
    let queries = [
        (
            QueryRequest {
                reserved: 1,
                ..QueryRequest::default()
            },
            Err(Errno::INVAL),
        ),
        (
            QueryRequest {
                capacity: 1,
                buffer: 0,
                ..QueryRequest::default()
            },
            Err(Errno::FAULT),
        ),
        (
            QueryRequest {
                capacity: u32::MAX,
                buffer: 8,
                ..QueryRequest::default()
            },
            Err(Errno::FAULT),
        ),
        (QueryRequest::default(), Ok(())),
    ];
    for (mut request, expected) in queries {
        // SAFETY: the kernel writes the request, and finds no other place that it could write to.
        let result = unsafe { device.request::<IOCTL_QUERY, _>(&mut request) };
        ensure!(result == expected, "querying: {result:?} instead of {expected:?}");
    }
    // A program whose final counts have nowhere to go is removed all the same.
    let mut request = RemoveRequest {
        capacity: 4,
        last: 8,
        ..remove_request("kernel", 1)
    };
    // SAFETY: the kernel writes the request, and finds nothing at address 8.
    let result = unsafe { device.request::<IOCTL_REMOVE, _>(&mut request) };
    ensure!(result == Err(Errno::FAULT), "removing: {result:?}");
    ensure!(device.query()?.is_empty(), "something is inserted");
    Ok(())
}

fn a_query_tells_the_version_and_the_count() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    device.insert(&program::at(
        7,
        &[symbol("do_sys_openat2"), symbol("vfs_read")],
        program::COUNT,
    ))?;
    let mut request = QueryRequest::default();
    // SAFETY: the kernel writes the request; there is room for no state.
    unsafe { device.request::<IOCTL_QUERY, _>(&mut request) }?;
    ensure!(
        (request.count, request.version) == (2, INTERFACE_VERSION),
        "{request:?}"
    );
    let probes = device.query()?;
    let codes: Vec<_> = probes.iter().map(|probe| (probe.major, probe.minor)).collect();
    ensure!(codes == [(7, 1), (7, 2)], "{codes:?}");
    Ok(())
}

fn truncated_objects_are_refused() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let good = program::at(1, &[symbol("do_sys_openat2")], program::COUNT);
    for length in 1..good.len() {
        match device.insert(&good[..length]) {
            Err(refused) if matches!(refused.reason(), Reason::Object | Reason::Verify) => {}
            other => return Err(format!("the first {length} of {} bytes: {other:?}", good.len()).into()),
        }
    }
    device.insert(&good)?;
    Ok(())
}

/// Some bits change nothing that matters, such as a line number: then the program is inserted, and must work.
fn flipped_bits_do_no_harm() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let good = program::at(1, &[symbol("do_sys_openat2")], "push 64\npush r, rsi\nlog str\nexit");
    let mut refused = 0;
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if device.insert(&bad).is_err() {
            refused += 1;
            continue;
        }
        let _ = std::fs::read("/proc/uptime");
        device.remove_all()?;
    }
    ensure!(
        refused > good.len(),
        "only {refused} of {} changes were refused",
        good.len() * 8
    );
    ensure!(device.query()?.is_empty(), "something is inserted");
    Ok(())
}

fn the_module_cannot_go_while_the_device_is_open() -> Outcome {
    let module = Module::dprobes()?;
    let device = Device::open()?;
    let error = module.unload().expect_err("unloaded under an open device");
    let errno = Errno::from_io_error(&error);
    ensure!(matches!(errno, Some(Errno::AGAIN | Errno::BUSY)), "{error}");
    drop(device);
    // It is still loaded, and can go now.
    crate::machine::unload("dprobes")?;
    Ok(())
}
