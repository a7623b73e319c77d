//! What hooks cost in a process, beside the crate `static-keys` and a function pointer: time, in turns, in one run.
//!
//! Prints a line `@time PICOSECONDS NAME` for each pass, what it takes more than the same function without anything in it, and
//! `@arm NANOSECONDS NAME` for arming a thousand hooks while so many threads run. `./x bench hooks` reads both.

#[path = "../tests/process/mod.rs"]
mod process;

use std::arch::global_asm;
use std::cell::UnsafeCell;
use std::ffi::CString;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use gkhi::text::{Text, Unreadable, Unwritable, Write};
use gkhi::{Counters, Exit, ExitWith, Flow, Hook, Image, Name, Registry, Shared, fire, hook};
use process::registry;
use static_keys::{define_static_key_false, static_branch_unlikely};

const PASSES: u64 = 100_000;
const ROUNDS: usize = 60;

hook! {
    static DORMANT: fn(value: u64) = "dormant";
    static ARMED: fn(value: u64) = "armed";
    static TWO: fn(value: u64) = "two";
}
define_static_key_false!(OFF);
define_static_key_false!(ON);
static NULL: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
static SET: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

static IMAGE: Image = gkhi::image!(c"process");

fn nothing(_: &(), value: u64) -> Flow {
    black_box(value);
    Flow::Continue
}
static ON_ARMED: ExitWith<()> = ARMED::exit(c"one", (), nothing);
static ON_TWO: [ExitWith<()>; 2] = [TWO::exit(c"one", (), nothing), TWO::exit(c"two", (), nothing)];

#[inline(never)]
extern "C" fn called(value: u64) {
    black_box(value);
}

fn call(pointer: &AtomicPtr<()>, value: u64) {
    let function = pointer.load(Relaxed);
    if !function.is_null() {
        // SAFETY: nothing else is stored there.
        let function = unsafe { std::mem::transmute::<*mut (), extern "C" fn(u64)>(function) };
        function(value);
    }
}

macro_rules! passes {
    ($($name:ident: |$value:ident| $body:expr;)*) => {$(
        #[inline(never)]
        #[allow(clippy::no_effect, reason = "one of them does nothing")]
        fn $name($value: u64) -> u64 {
            $body;
            $value.rotate_left(7)
        }
    )*};
}
passes! {
    without: |value| ();
    dormant: |value| fire!(DORMANT, value);
    armed: |value| fire!(ARMED, value);
    two: |value| fire!(TWO, value);
    key_off: |value| if static_branch_unlikely!(OFF) { called(value) };
    key_on: |value| if static_branch_unlikely!(ON) { called(value) };
    pointer_null: |value| call(&NULL, value);
    pointer_set: |value| call(&SET, value);
}

/// Picoseconds of a pass.
fn time(pass: fn(u64) -> u64) -> u64 {
    let start = Instant::now();
    for value in 0..PASSES {
        black_box(pass(black_box(value)));
    }
    (start.elapsed().as_nanos() as u64 * 1000) / PASSES
}

/// A thousand hooks whose sites are never passed, each with an exit of its own.
mod many {
    use super::*;

    pub const COUNT: usize = 1000;

    global_asm!(
        ".pushsection .text.many, \"ax\", @progbits",
        ".balign 4096",
        ".globl many_sites, many_armed",
        "many_sites:",
        ".rept 1000",
        ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
        ".endr",
        "many_armed:",
        "ret",
        ".balign 4096",
        ".popsection",
    );
    unsafe extern "C" {
        static many_sites: [[u8; 5]; COUNT];
        static many_armed: u8;
    }

    /// A site's record, as the crate's documentation has it.
    #[repr(C)]
    struct Record {
        code: i32,
        target: i32,
        hook: i64,
        spare: [u64; 2],
    }
    /// Near the text.
    struct Records(UnsafeCell<[Record; COUNT]>);
    // SAFETY: written once, before the registry gets it.
    unsafe impl Sync for Records {}
    static RECORDS: Records = Records(UnsafeCell::new(
        [const {
            Record {
                code: 0,
                target: 0,
                hook: 0,
                spare: [0; 2],
            }
        }; COUNT],
    ));

    /// The process, with text that it may write: what is left are the registry's own work and the core syncs.
    pub struct Host;

    impl Text for Host {
        fn read_text(&self, address: usize, bytes: &mut [u8]) -> Result<(), Unreadable> {
            let from = ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: the registry reads sites only, and nobody writes them meanwhile.
            unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
            Ok(())
        }

        fn write_text(&self, writes: &[Write]) -> Result<(), Unwritable> {
            for write in writes {
                let to = ptr::with_exposed_provenance_mut::<u8>(write.address);
                // SAFETY: the sites' pages have been made writable, and nobody executes them.
                unsafe { ptr::copy_nonoverlapping(write.bytes().as_ptr(), to, write.bytes().len()) };
            }
            Ok(())
        }

        fn sync_cores(&self) {
            process::membarrier(process::SYNC);
        }
    }

    // SAFETY: the GS base is zero, and the counters are never freed.
    unsafe impl gkhi::Host for Host {
        fn cpus(&self) -> usize {
            1
        }
        fn alloc_counters(&self) -> Option<usize> {
            Some((&raw const *Box::leak(Box::new(Counters::new()))).expose_provenance())
        }
        fn free_counters(&self, _: usize) {}
        fn counters(&self, cpu: usize, offset: usize) -> Option<&Counters> {
            // SAFETY: it came from `alloc_counters`.
            (cpu == 0).then(|| unsafe { &*ptr::with_exposed_provenance(offset) })
        }
        fn relax(&self) {
            thread::yield_now();
        }
    }

    extern "C" fn exit(_: *const Exit) -> i32 {
        0
    }

    fn name(prefix: &str, number: usize) -> Name {
        Name::new(Box::leak(
            CString::new(format!("{prefix}_{number}")).unwrap().into_boxed_c_str(),
        ))
    }

    /// The registry, and the exits.
    pub fn make() -> (Registry<Host>, Vec<&'static Exit>) {
        static SHARED: Shared = Shared::new();
        let text = &raw const many_sites;
        // SAFETY: two pages of the program, in which nothing else is.
        let result = unsafe {
            libc::mprotect(
                text.cast_mut().cast(),
                8192,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        let records = RECORDS.0.get().cast::<Record>();
        let distance = |to: usize, from: *const ()| to.wrapping_sub(from as usize) as isize;
        let exits = (0..COUNT).map(|number| {
            let head = &raw const *Box::leak(Box::new(Hook::new(name("many", number), Name::NONE, 0, 0)));
            // SAFETY: one of the records; and the exit does what the prototype says.
            unsafe {
                let record = records.add(number);
                (*record).code = distance(text as usize + 5 * number, (&raw const (*record).code).cast()) as i32;
                (*record).target =
                    distance(&raw const many_armed as usize, (&raw const (*record).target).cast()) as i32;
                (*record).hook = distance(head.expose_provenance(), (&raw const (*record).hook).cast()) as i64;
                let exit = Exit::raw(
                    (*head).name(),
                    name("exit", number),
                    Name::NONE,
                    exit as *const (),
                    ptr::null(),
                );
                &*Box::leak(Box::new(exit))
            }
        });
        let exits: Vec<_> = exits.collect();
        let end = records.wrapping_add(COUNT);
        // SAFETY: as many records as were filled in.
        let image = unsafe {
            Image::new(
                Name::new(c"many"),
                records.cast_const().cast()..end.cast_const().cast(),
                ptr::null()..ptr::null(),
            )
        };
        let mut registry = Registry::new(Host, &SHARED);
        registry.add_image(Box::leak(Box::new(image))).unwrap();
        for exit in &exits {
            registry.register(exit).unwrap();
        }
        (registry, exits)
    }
}

/// Nanoseconds of arming all exits, one by one and as a set.
fn arm(registry: &mut Registry<many::Host>, exits: &[&'static Exit]) -> [u64; 2] {
    let start = Instant::now();
    for exit in exits {
        registry.arm(&[exit]).unwrap();
    }
    let single = start.elapsed();
    registry.disarm(exits).unwrap();
    let start = Instant::now();
    registry.arm(exits).unwrap();
    let set = start.elapsed();
    registry.disarm(exits).unwrap();
    [single, set].map(|time| time.as_nanos() as u64)
}

fn main() {
    // Before there are threads.
    static_keys::global_init();
    // SAFETY: there is no other thread.
    unsafe { ON.enable() };
    SET.store(called as *mut (), Relaxed);
    let mut registry = registry(&IMAGE);
    registry.register(&ON_ARMED).unwrap();
    for exit in &ON_TWO {
        registry.register(exit).unwrap();
    }
    registry.arm(&[&ON_ARMED, &ON_TWO[0], &ON_TWO[1]]).unwrap();

    type Subject = (fn(u64) -> u64, &'static str);
    let subjects: [Subject; 8] = [
        (without, ""),
        (dormant, "hook: dormant"),
        (armed, "hook: one exit"),
        (two, "hook: two exits"),
        (key_off, "static-keys, a call behind it: off"),
        (key_on, "static-keys, a call behind it: on"),
        (pointer_null, "function pointer: null"),
        (pointer_set, "function pointer: set"),
    ];
    let mut best = subjects.map(|_| u64::MAX);
    for _ in 0..ROUNDS {
        for (best, (pass, _)) in best.iter_mut().zip(subjects) {
            *best = time(pass).min(*best);
        }
    }
    for (time, (_, name)) in best.iter().zip(subjects).skip(1) {
        println!("@time {} {name}", time.saturating_sub(best[0]));
    }

    let (mut registry, exits) = many::make();
    for threads in [1, 2, 4] {
        let stop = AtomicBool::new(false);
        let times = thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let rounds = (0..5).map(|_| arm(&mut registry, &exits));
            let best = rounds.reduce(|[a, b], [c, d]| [a.min(c), b.min(d)]);
            stop.store(true, Relaxed);
            best.unwrap_or_default()
        });
        for (time, how) in times.into_iter().zip(["one by one", "in one transaction"]) {
            println!("@arm {time} {threads} running: {} hooks, {how}", many::COUNT);
        }
    }
}
