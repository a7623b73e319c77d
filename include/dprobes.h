/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * DProbes: the engine's C interface. Generated from the Rust sources by `./x headers`; do not edit.
 *
 * Names in [brackets] in the comments are Rust's; those with a counterpart here have it under the same name in lower case, with dprobes_
 * in front.
 */

#ifndef DPROBES_H
#define DPROBES_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stdint.h>
#endif

/* In gkhi.h. */
struct gkhi_image;

/* Requests to /dev/dprobes; include <linux/ioctl.h> or <sys/ioctl.h> to use them. */
#define DPROBES_IOCTL_INSERT _IOWR('D', 1, struct dprobes_insert_request)
#define DPROBES_IOCTL_REMOVE _IOWR('D', 2, struct dprobes_remove_request)
#define DPROBES_IOCTL_QUERY _IOWR('D', 3, struct dprobes_query_request)
#define DPROBES_IOCTL_MAPS _IOWR('D', 4, struct dprobes_maps_request)
#define DPROBES_IOCTL_READ_MAP _IOWR('D', 5, struct dprobes_read_map_request)
#define DPROBES_IOCTL_CHECK _IOWR('D', 6, struct dprobes_check_request)
#define DPROBES_IOCTL_VARS _IOWR('D', 7, struct dprobes_vars_request)
#define DPROBES_IOCTL_RINGS _IOWR('D', 8, struct dprobes_rings_request)


/*
 The longest object that is looked at, in bytes. One with as many points as an object can have, 131,072, is 12 MiB and its strings.
 */
#define DPROBES_OBJECT_MAX (1 << 25)

/*
 The longest name of a module, in bytes.
 */
#define DPROBES_MODULE_NAME_MAX 64

/*
 What a query tells its caller; a command and a kernel that differ refuse each other.
 */
#define DPROBES_INTERFACE_VERSION 6

/*
 For `all` of a request to remove: remove everything.
 */
#define DPROBES_REMOVE_ALL 1

/*
 The same: halt everything at once, then remove it.
 */
#define DPROBES_REMOVE_ALL_NOW 2

/*
 Of [`dprobes_insert_as`]: there must be no program with the same major code for the same module.
 */
#define DPROBES_INSERT_NEW 0

/*
 The probes are added to the program that is there.
 */
#define DPROBES_INSERT_MERGE 1

/*
 The program that is there is removed, if there is one.
 */
#define DPROBES_INSERT_REPLACE 2

/*
 Of [`dprobes_disarm`]: all probes of the program.
 */
#define DPROBES_KEEP_ALL 1

/*
 Those with a minor code.
 */
#define DPROBES_KEEP_MINOR 2

/*
 Those of a group.
 */
#define DPROBES_KEEP_GROUP 3

/*
 Those of a type.
 */
#define DPROBES_KEEP_TYPE 4

/*
 Bytes in a slot of the slot area.
 */
#define DPROBES_SLOT_SIZE 32

/*
 How many addresses [`dprobes_check`] takes at once.
 */
#define DPROBES_CHECKS_MAX 65536

/*
 The version of [`dprobes_host`]; [`dprobes_init`](crate::dprobes_init) refuses any other.
 */
#define DPROBES_HOST_VERSION 6

/*
 Words of a key, at most.
 */
#define DPROBES_MAP_KEYS_MAX 4

/*
 For `action` of a request about rings: nothing.
 */
#define DPROBES_RINGS_LOOK 0

/*
 For `action` of a request about rings: what does not fit is dropped. This is how it is at first.
 */
#define DPROBES_RINGS_KEEP_OLDEST 1

/*
 For `action` of a request about rings: be a flight recorder; the oldest records give way to those that do not fit.
 */
#define DPROBES_RINGS_KEEP_NEWEST 2

/*
 For `action` of a request about rings: record nothing, until thawed, or until the file is closed by which this was asked for.
 */
#define DPROBES_RINGS_FREEZE 3

/*
 For `action` of a request about rings: record again.
 */
#define DPROBES_RINGS_THAW 4

/*
 For `action` of a request about rings: wait until it is known of every record that is there whether its instruction has completed.
 */
#define DPROBES_RINGS_SETTLE 5

/*
 The most bytes that [`dprobes_instruction`] gives.
 */
#define DPROBES_INSTRUCTION_MAX 15

/*
 How many words `follow_return` is given for a call, and [`dprobes_on_return`] gets back.
 */
#define DPROBES_CALL_WORDS 8

/*
 The ring of the CPU, from which records are read.
 */
#define DPROBES_TARGET_RING 1

/*
 The kernel's log.
 */
#define DPROBES_TARGET_KERNEL_LOG 2

/*
 A serial port.
 */
#define DPROBES_TARGET_SERIAL 4

/*
 The kernel's own tracing: an event for each record.
 */
#define DPROBES_TARGET_TRACE 8

/*
 Why an instruction cannot be probed.

 No correct resumption exists, or none that is worth its risk. The numbers are stable, because they cross the boundary to
 user space; one that is missing was a refusal once and is none any more. `docs/instructions.md` has the list for users.
 */
enum dprobes_refusal
#if __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     `int3`: it is somebody's breakpoint, or padding that never runs.
     */
    DPROBES_REFUSAL_BREAKPOINT = 1,
    /*
     `int n`, `int1`: their handler finds the return address where the CPU has pushed it, and from ring 3 on another stack.
     */
    DPROBES_REFUSAL_SOFTWARE_INTERRUPT = 2,
    /*
     `syscall`, `sysenter`: the kernel is entered with the return address in a register that the engine does not get to
     see before the kernel's entry code has used it.
     */
    DPROBES_REFUSAL_SYSTEM_CALL = 5,
    /*
     `sysret`, `sysexit`: the stack and GS are user space's there, a breakpoint must not be taken.
     */
    DPROBES_REFUSAL_SYSTEM_RETURN = 6,
    /*
     `ud0`, `ud1`: they only raise #UD, and kernels put a meaning into their operands, which the handler decodes.
     */
    DPROBES_REFUSAL_UNDEFINED = 10,
    /*
     `enclu`: it enters and leaves an enclave with the address of the next instruction in a register, and an enclave does
     not show whether it has come back.
     */
    DPROBES_REFUSAL_ENCLAVE = 12,
    /*
     `rsm`, `skinit`, `getsec`, `vmfunc`: they change how or from where the next instruction is fetched.
     */
    DPROBES_REFUSAL_EXECUTION_MODE = 13,
    /*
     A near branch or `xbegin` with a 66 and no REX.W prefix: Intel ignores the prefix, AMD truncates RIP to 16 bits and
     shortens the displacement, so that even its length depends on the vendor. Compilers do not emit it.
     */
    DPROBES_REFUSAL_VENDOR_DEPENDENT = 14,
    /*
     A single step is not exact: it would show in the flags that the instruction reads, would undo those it writes, or
     would wait with interrupts off. Only [`Insn::step`](super::Insn::step) says this; [`Insn::resume`](super::Insn::resume) has a
     better way.
     */
    DPROBES_REFUSAL_SINGLE_STEP = 15,
    /*
     `sti` or `mov ss` in front of an instruction that cannot be carried out in their shadow: one of the others here, one
     that casts a shadow itself, or one that is not known.
     */
    DPROBES_REFUSAL_INTERRUPT_SHADOW = 16,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_refusal dprobes_refusal;
#else
typedef uint8_t dprobes_refusal;
#endif // __STDC_VERSION__ >= 202311L

/*
 What a watchpoint watches for. The names are those of the debug registers' R/W fields (SDM volume 3, 18.2.4).
 */
enum dprobes_watch_kind
#if __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     The instruction at the address is about to be executed.
     */
    DPROBES_WATCH_KIND_EXECUTE = 1,
    /*
     Something has been written there.
     */
    DPROBES_WATCH_KIND_WRITE = 2,
    /*
     The I/O port has been read or written.
     */
    DPROBES_WATCH_KIND_IO = 3,
    /*
     Something there has been read or written, but not fetched as an instruction.
     */
    DPROBES_WATCH_KIND_READ_WRITE = 4,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_watch_kind dprobes_watch_kind;
#else
typedef uint8_t dprobes_watch_kind;
#endif // __STDC_VERSION__ >= 202311L

/*
 Why a request was refused. `facts` and `detail` name the fields of [`Reply`].
 */
enum dprobes_reason
#if __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     Not refused.
     */
    DPROBES_REASON_NONE = 0,
    /*
     The bytes are not a program object; `facts[0]` is the offset of the byte that is wrong.
     */
    DPROBES_REASON_OBJECT = 1,
    /*
     The program does not verify; `facts[0]` is the offset in the code.
     */
    DPROBES_REASON_VERIFY = 2,
    /*
     A program with this major code is inserted for this module.
     */
    DPROBES_REASON_EXISTS = 3,
    /*
     No such program or probe.
     */
    DPROBES_REASON_NOT_FOUND = 4,
    /*
     Memory is short.
     */
    DPROBES_REASON_NO_MEMORY = 5,
    /*
     No slot is free; `facts[0]` is how many there are.
     */
    DPROBES_REASON_NO_SLOT = 6,
    /*
     A symbol was not resolved before insertion.
     */
    DPROBES_REASON_UNRESOLVED = 7,
    /*
     The module is not loaded.
     */
    DPROBES_REASON_NO_MODULE = 8,
    /*
     The host does not allow a probe here; `detail` is a [`Prohibited`](crate::host::Prohibited).
     */
    DPROBES_REASON_PROHIBITED = 9,
    /*
     The address is not where an instruction begins; `facts[0]` is the start of the instruction that contains it,
     `facts[1]` that of the next one.
     */
    DPROBES_REASON_NOT_BOUNDARY = 10,
    /*
     The bytes there are not those the program expects; `facts[0]` has the expected and `facts[1]` the found bytes,
     first byte lowest, `detail` how many were compared (8 are shown at most).
     */
    DPROBES_REASON_OPCODE = 11,
    /*
     This instruction cannot be probed; `detail` is a [`Refusal`](crate::insn::Refusal) as a number, `facts[1]` its
     first bytes.
     */
    DPROBES_REASON_INSTRUCTION = 12,
    /*
     The bytes there, or others before them in the function, are not an instruction; `facts[1]` has the first bytes.
     */
    DPROBES_REASON_UNDECODABLE = 13,
    /*
     Text could not be read.
     */
    DPROBES_REASON_UNREADABLE = 14,
    /*
     Text could not be written.
     */
    DPROBES_REASON_UNWRITABLE = 15,
    /*
     The slot is too far from something the instruction refers to.
     */
    DPROBES_REASON_OUT_OF_REACH = 16,
    /*
     The program has two points at one address, or more probes are at one address than the engine chains.
     */
    DPROBES_REASON_ADDRESS_IN_USE = 17,
    /*
     Probes of this kind of module are not supported by this host.
     */
    DPROBES_REASON_MODULE_KIND = 18,
    /*
     There are too many global variables of different names; `facts[0]` is how many there may be.
     */
    DPROBES_REASON_GLOBALS = 19,
    /*
     The maps of the program are beyond a limit; `facts[0]` is how many bytes they take for each CPU, if that is it.
     */
    DPROBES_REASON_MAPS = 20,
    /*
     The location cannot be watched; `detail` is a [`LocationError`](crate::rpn::object::LocationError) as a number, `facts[0]` how many
     bytes were to be watched.
     */
    DPROBES_REASON_WATCH_LOCATION = 21,
    /*
     No debug register is free; `facts[0]` has a bit for each that others use, `facts[1]` for each that the engine uses: bit 0 for the first
     of the four. Where the host does not tell who has them both are 0. `detail` is a process that has some, or 0.
     */
    DPROBES_REASON_WATCH_IN_USE = 22,
    /*
     The host cannot watch this; `detail` is a [`WatchUnsupported`] as a number.
     */
    DPROBES_REASON_WATCH_UNSUPPORTED = 23,
    /*
     The file of a program for user space cannot be probed, or not at this place; `detail` is a [`FileError`](crate::host::FileError) as a
     number.
     */
    DPROBES_REASON_FILE = 24,
    /*
     The module has no such symbol. `detail` is 0 when it is the place of the point, and 1 when it is a symbol in its handler, whose word is at
     offset `facts[0]` of the code.
     */
    DPROBES_REASON_NO_SYMBOL = 25,
    /*
     The module has several symbols of this name; `detail` and `facts[0]` as for [`NoSymbol`](Self::NoSymbol).
     */
    DPROBES_REASON_AMBIGUOUS_SYMBOL = 26,
    /*
     The place is not inside the function that it is counted from; `facts[0]` is the distance, signed, `facts[1]` the size of the function.
     */
    DPROBES_REASON_OUTSIDE_SYMBOL = 27,
    /*
     All programs together would take more memory than the host permits: `facts[0]` is how many bytes that is, `facts[1]` how many they take
     without this one.
     */
    DPROBES_REASON_MEMORY_BOUND = 28,
    /*
     Calls of the function cannot be followed to their returns; `detail` is a [`ReturnError`](crate::host::ReturnError) as a number.
     */
    DPROBES_REASON_RETURN = 29,
    /*
     The exit facility `facts[0]` is not there; `detail` is a [`FacilityError`](crate::host::FacilityError) as a number.
     */
    DPROBES_REASON_FACILITY = 30,
    /*
     The program cannot be merged into the one that is inserted; `detail` is a [`MergeError`](crate::probe::MergeError) as a number.
     */
    DPROBES_REASON_MERGE = 31,
    /*
     The handler of the point uses variables of a call, and the point is neither on the returns of a function nor at the beginning of one on whose
     returns the program has a point too.
     */
    DPROBES_REASON_CALL_VARIABLES = 32,
    /*
     The target `facts[0]`, a bit of [`Targets`](crate::host::Targets), is not there; `detail` is a
     [`FacilityError`](crate::host::FacilityError) as a number.
     */
    DPROBES_REASON_TARGET = 33,
    /*
     There is no process of the number `detail`, in which the program's watchpoints are to watch.
     */
    DPROBES_REASON_NO_PROCESS = 34,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_reason dprobes_reason;
#else
typedef uint32_t dprobes_reason;
#endif // __STDC_VERSION__ >= 202311L

/*
 What a probe does at present.
 */
enum dprobes_state
#if __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     The breakpoint is in place.
     */
    DPROBES_STATE_ARMED = 1,
    /*
     It took its `max_hits`; the breakpoint is out, or will be out at once.
     */
    DPROBES_STATE_EXHAUSTED = 2,
    /*
     Its own program removed it.
     */
    DPROBES_STATE_REMOVED_ITSELF = 3,
    /*
     The module it was in has been unloaded, and the probe does not come back: the program asks for an address.
     */
    DPROBES_STATE_MODULE_GONE = 4,
    /*
     Its module is not loaded. The probe goes in when it is, before the module's initialisation runs. If it was refused the last time
     that the module was loaded, the status has the reason.
     */
    DPROBES_STATE_WAITING = 5,
    /*
     It could not be put in when its module was loaded; the status has the reason. It is tried again when the module is loaded again.
     */
    DPROBES_STATE_REFUSED = 6,
    /*
     Another probe of its program was refused when its module was loaded: a program's probes are all in, or none is.
     */
    DPROBES_STATE_WITHHELD = 7,
    /*
     It was in the module's initialisation, which has run, and whose memory has been freed. It goes in again when the module is loaded
     again.
     */
    DPROBES_STATE_CODE_FREED = 8,
    /*
     It was taken out by request, and its program is kept until it is removed, so that what it has counted can be read.
     */
    DPROBES_STATE_DISARMED = 9,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_state dprobes_state;
#else
typedef uint32_t dprobes_state;
#endif // __STDC_VERSION__ >= 202311L

/*
 Why the host does not allow a probe at an address.
 */
enum dprobes_prohibited
#if __STDC_VERSION__ >= 202311L
  : int32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     Not the text of the kernel or of a loaded module.
     */
    DPROBES_PROHIBITED_NOT_TEXT = 1,
    /*
     In text, but no function is known to be there, so that instruction boundaries cannot be established.
     */
    DPROBES_PROHIBITED_NO_FUNCTION = 2,
    /*
     Excluded: entry code, noinstr text, or the engine itself.
     */
    DPROBES_PROHIBITED_EXCLUDED = 3,
    /*
     The function tracer owns these bytes.
     */
    DPROBES_PROHIBITED_FTRACE = 4,
    /*
     A jump label owns these bytes.
     */
    DPROBES_PROHIBITED_JUMP_LABEL = 5,
    /*
     A static call owns these bytes.
     */
    DPROBES_PROHIBITED_STATIC_CALL = 6,
    /*
     Alternatives are being applied to these bytes.
     */
    DPROBES_PROHIBITED_ALTERNATIVE = 7,
    /*
     The kernel recovers from a fault at this instruction by decoding it, and would find the breakpoint.
     */
    DPROBES_PROHIBITED_EXCEPTION_ENTRY = 8,
    /*
     Another facility has a breakpoint here.
     */
    DPROBES_PROHIBITED_FOREIGN_BREAKPOINT = 9,
    /*
     The kernel finds a `BUG` or `WARN` by this address, where there is its `ud2` or `ud1`.
     */
    DPROBES_PROHIBITED_BUG = 10,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_prohibited dprobes_prohibited;
#else
typedef int32_t dprobes_prohibited;
#endif // __STDC_VERSION__ >= 202311L

/*
 How a place is probed that the host does something about as well.
 */
enum dprobes_special
#if __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     Like any other: its text stays what it is.
     */
    DPROBES_SPECIAL_NONE = 0,
    /*
     The host rewrites the instruction while it may be run, and tells by [`Engine::rewrite`](crate::probe::Engine::rewrite) when a breakpoint of the
     engine is there. It does so, as the engine changes this text, with [`Host::lock_rewrites`] held.
     */
    DPROBES_SPECIAL_REWRITTEN = 1,
    /*
     A `ud2`, or a `ud1`, that the host finds by its address and its bytes. No breakpoint replaces it: it is a trap by itself, which the host
     reports by [`Engine::on_undefined`](crate::probe::Engine::on_undefined) before it does anything about it.
     */
    DPROBES_SPECIAL_REPORTED = 2,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_special dprobes_special;
#else
typedef uint32_t dprobes_special;
#endif // __STDC_VERSION__ >= 202311L

/*
 Why a host has no probe in a file.
 */
enum dprobes_file_error
#if __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     This host has no probes in user space.
     */
    DPROBES_FILE_ERROR_UNSUPPORTED = 1,
    /*
     The request came with no file.
     */
    DPROBES_FILE_ERROR_NO_FILE = 2,
    /*
     It is no regular file, or its file system does not let files be mapped.
     */
    DPROBES_FILE_ERROR_NOT_MAPPABLE = 3,
    /*
     The place is behind the end of the file.
     */
    DPROBES_FILE_ERROR_OUTSIDE = 4,
    /*
     The facility that delivers the hits does not probe the instruction there.
     */
    DPROBES_FILE_ERROR_INSTRUCTION = 5,
    /*
     Memory is short.
     */
    DPROBES_FILE_ERROR_NO_MEMORY = 6,
    /*
     The file cannot be read there.
     */
    DPROBES_FILE_ERROR_UNREADABLE = 7,
    /*
     The place is an address, and not one in the file.
     */
    DPROBES_FILE_ERROR_ADDRESS = 8,
    /*
     The facility has failed in a way that it does not explain.
     */
    DPROBES_FILE_ERROR_FAILED = 9,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_file_error dprobes_file_error;
#else
typedef uint32_t dprobes_file_error;
#endif // __STDC_VERSION__ >= 202311L

/*
 Why an exit facility or a target cannot be reached, as far as that is known before it is asked for.
 */
enum dprobes_facility_error
#if __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     The host has none.
     */
    DPROBES_FACILITY_ERROR_ABSENT = 1,
    /*
     The host has it, and was told not to let programs have it.
     */
    DPROBES_FACILITY_ERROR_FORBIDDEN = 2,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_facility_error dprobes_facility_error;
#else
typedef uint32_t dprobes_facility_error;
#endif // __STDC_VERSION__ >= 202311L

/*
 Why a host does not follow the calls of a function to where they return.
 */
enum dprobes_return_error
#if __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     It follows none.
     */
    DPROBES_RETURN_ERROR_UNSUPPORTED = 1,
    /*
     A call does not begin at the place: it is not the first instruction of a function.
     */
    DPROBES_RETURN_ERROR_NOT_ENTRY = 2,
    /*
     The function does not return: there is no way out of its code.
     */
    DPROBES_RETURN_ERROR_NEVER_RETURNS = 3,
    /*
     The function returns for another task, or on another stack, than it was called on.
     */
    DPROBES_RETURN_ERROR_SWITCHES = 4,
    /*
     Memory is short.
     */
    DPROBES_RETURN_ERROR_NO_MEMORY = 5,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_return_error dprobes_return_error;
#else
typedef uint32_t dprobes_return_error;
#endif // __STDC_VERSION__ >= 202311L

/*
 What a record is, and how far it has come. The numbers are those in [`Header::state`].
 */
enum dprobes_record_state
#if __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     The probed instruction has not completed as far as is known; only inside the ring.
     */
    DPROBES_RECORD_STATE_PROVISIONAL = 1,
    /*
     Final.
     */
    DPROBES_RECORD_STATE_PUBLISHED = 2,
    /*
     The probed instruction faulted, it will run again; readers skip it.
     */
    DPROBES_RECORD_STATE_DISCARDED = 3,
    /*
     No probe's record: [`Header::facts`] says how many records this CPU lost since the last such record.
     */
    DPROBES_RECORD_STATE_LOST = 4,
};
#if __STDC_VERSION__ >= 202311L
typedef enum dprobes_record_state dprobes_record_state;
#else
typedef uint32_t dprobes_record_state;
#endif // __STDC_VERSION__ >= 202311L

/*
 Who was running when a probe fired.
 */
struct dprobes_task {
    /*
     Process id, as user space knows it (Linux: the thread group id).
     */
    uint32_t pid;
    /*
     Thread id.
     */
    uint32_t tid;
    /*
     Real user id.
     */
    uint32_t uid;
    /*
     Must be zero.
     */
    uint32_t reserved;
    /*
     A number that tells this task from every other living one, whatever name spaces say (Linux: the task's address).
     Never printed; it finds the record of an instruction that faulted after it was interrupted.
     */
    uint64_t cookie;
    /*
     Process name, zero-padded; not terminated when all 16 bytes are used.
     */
    uint8_t name[16];
};

/*
 The registers of interrupted code, in the order of Linux's `struct pt_regs` (arch/x86/include/asm/ptrace.h).

 One layout for all hosts: the Linux module passes its `pt_regs` as it is, the entry stubs of
 [`trap::entry`](crate::trap::entry) build it, the in-process host fills one from the signal context.
 */
struct dprobes_trap_frame {
    uint64_t r15;
    uint64_t r14;
    uint64_t r13;
    uint64_t r12;
    uint64_t rbp;
    uint64_t rbx;
    uint64_t r11;
    uint64_t r10;
    uint64_t r9;
    uint64_t r8;
    uint64_t rax;
    uint64_t rcx;
    uint64_t rdx;
    uint64_t rsi;
    uint64_t rdi;
    /*
     The error code the CPU pushed, or the vector or system call number: whatever the host keeps here.
     */
    uint64_t error_code;
    uint64_t rip;
    uint64_t cs;
    uint64_t rflags;
    uint64_t rsp;
    uint64_t ss;
};

/*
 What a program that ends with `exit_to` asks for. See [`Host::exit_to`].
 */
struct dprobes_exit_to {
    /*
     Which facility: 1 the debugger, 2 a crash dump, 3 a core dump of the process, 4 the kernel's own trace, 5 a snapshot of the rings, 16 to 255 what other modules
     have registered.
     */
    uint32_t facility;
    /*
     Major code of the program.
     */
    uint16_t major;
    /*
     Minor code of the probe.
     */
    uint16_t minor;
    /*
     Address of the probed instruction.
     */
    uint64_t address;
};

/*
 The head of a record: 72 bytes, little-endian, followed by elements (see [`element`](super::element)).

 A record is a multiple of 8 bytes long; [`length`](Self::length) includes the head and the padding at the end, and
 [`elements`](Self::elements) is the exact length of the elements.
 */
struct dprobes_header {
    /*
     A [`RecordState`] as a number.
     */
    uint32_t state;
    /*
     Bytes from this record to the next: a multiple of 8, at least 72.
     */
    uint32_t length;
    /*
     Host clock in nanoseconds.
     */
    uint64_t time;
    /*
     Address of the probed instruction.
     */
    uint64_t address;
    /*
     Major code.
     */
    uint16_t major;
    /*
     Minor code (the program may have replaced it for this record).
     */
    uint16_t minor;
    /*
     The CPU the probe fired on.
     */
    uint32_t cpu;
    /*
     Process id.
     */
    uint32_t pid;
    /*
     Thread id.
     */
    uint32_t tid;
    /*
     Real user id.
     */
    uint32_t uid;
    /*
     Length of the elements that follow, in bytes.
     */
    uint32_t elements;
    /*
     Process name, zero-padded.
     */
    uint8_t name[16];
    /*
     In the ring: the task's cookie. In the stream: for a [`RecordState::Lost`] record how many were lost, else 0.
     */
    uint64_t facts;
};


/*
 A place in text that may be probed, as far as the host knows.
 */
struct dprobes_function {
    /*
     Address of the function's first byte.
     */
    uint64_t start;
    /*
     Address after its last byte.
     */
    uint64_t end;
};

/*
 An address that the engine asks the host about, and the answer. See [`Host::probeable_batch`].
 */
struct dprobes_candidate {
    /*
     The address.
     */
    uint64_t address;
    /*
     The function it is in. It counts if `prohibited` is 0.
     */
    struct dprobes_function function;
    /*
     0, or the [`Prohibited`] that says why there may be no probe.
     */
    int32_t prohibited;
    /*
     The [`Special`] that the place is, if there may be a probe.
     */
    uint32_t special;
};

/*
 Bytes for one place in text or in a slot. See [`Host::write_text`].
 */
struct dprobes_patch {
    /*
     Where the first byte goes.
     */
    uint64_t address;
    /*
     How many of `bytes` count: 1..=32.
     */
    uint32_t len;
    /*
     Must be zero.
     */
    uint32_t reserved;
    /*
     The bytes.
     */
    uint8_t bytes[32];
};
/*
 The most bytes that one patch holds.
 */
#define dprobes_patch_MAX 32

/*
 Who has the debug registers, all of which are in use: a bit for each of the four, the lowest for the first. All zero: not known.
 */
struct dprobes_watch_users {
    /*
     Those that others use, on any CPU.
     */
    uint32_t others;
    /*
     Those that `set_watchpoint` has set.
     */
    uint32_t ours;
    /*
     A process that has some, or for which they are kept; 0 when none is known.
     */
    uint32_t process;
    /*
     0.
     */
    uint32_t reserved;
};

/*
 Which file a program for user space is for: what `stat` says of it. No two files have the same while probes are in one of them.
 */
struct dprobes_file_id {
    /*
     The device, as in `st_dev`.
     */
    uint64_t device;
    /*
     The inode, as in `st_ino`.
     */
    uint64_t inode;
};

/*
 What the surrounding kernel provides. Every function must be given, except for those about watchpoints, those about
 returns, and those about files in user space: of each kind all or none.

 The functions marked *hit* are called from a trap, with interrupts off, possibly inside the page-fault handler or an
 NMI: they must not sleep, allocate, page in, or take a lock that interrupted code may hold. All others are called from
 the caller of a control function, in a context that may sleep.
 */
struct dprobes_host {
    /*
     `DPROBES_HOST_VERSION`.
     */
    uint32_t version;
    /*
     `sizeof(struct dprobes_host)`.
     */
    uint32_t size;
    /*
     Where the number of the CPU is, below `cpu_count`: 32 bits at this distance from the base of GS, on every CPU and whenever the library is
     called. It is asked for in every hit, where a call would be a tenth of the cost.
     */
    uint64_t cpu_at;
    /*
     *Hit.* Copies `length` bytes at `address`, kernel or user, into `buffer`. 0, or a negative errno with the address of
     the first byte that could not be read in `*bad`. CR2 is as it was afterwards.
     */
    int32_t (*read)(uint64_t address, uint8_t *buffer, uintptr_t length, uint64_t *bad);
    /*
     *Hit.* Copies `length` bytes from `buffer` to `address`, kernel or user. As `read`.
     */
    int32_t (*write)(uint64_t address, const uint8_t *buffer, uintptr_t length, uint64_t *bad);
    /*
     *Hit.* A monotonic clock in nanoseconds.
     */
    uint64_t (*now)(void);
    /*
     *Hit.* Fills in the current task.
     */
    void (*task)(struct dprobes_task *task);
    /*
     *Hit.* Fills in the user-mode registers of the current task, as it will continue with them. 0, or a negative errno for a
     task that has no user mode.
     */
    int32_t (*user_registers)(struct dprobes_trap_frame *frame);
    /*
     *Hit.* Has the current task continue in user mode with these general registers and this `rip`; nothing else of
     `*frame` is looked at. 0, or a negative errno for a task that has no user mode.
     */
    int32_t (*set_user_registers)(const struct dprobes_trap_frame *frame);
    /*
     *Hit.* Reads a model-specific register. 0, or a negative errno when the CPU refuses; nobody else notices the fault.
     */
    int32_t (*msr)(uint32_t number, uint64_t *value);
    /*
     *Hit.* Can the byte at `address` be written, without anything being paged in? The check must not be able to lose what
     another CPU stores there. CR2 is as it was afterwards.
     */
    bool (*writable)(uint64_t address);
    /*
     *Hit.* Fills `addresses`, which has room for `capacity`, with the kernel stack of the code with the registers `*frame`,
     innermost first: the address in `rip`, then return addresses. Returns how many there are, or a negative errno when there is no
     unwinder: the engine follows frame pointers then.
     */
    int64_t (*kernel_stack)(const struct dprobes_trap_frame *frame, uint64_t *addresses, uintptr_t capacity);
    /*
     *Hit.* Triggers an exit facility, for a hit on code with the registers `*frame`, whose record has `length` bytes of `elements`. 0, or a
     negative errno when there is no such facility.
     */
    int32_t (*exit_to)(const struct dprobes_exit_to *exit,
                       const struct dprobes_trap_frame *frame,
                       const uint8_t *elements,
                       uintptr_t length);
    /*
     *Hit.* Passes a record to `targets`, bits: 2 the kernel's log, 4 the serial port, 8 the kernel's own trace. `head` is the record's, behind which
     nothing follows: it has `length` bytes of `elements`. The probed instruction has not been carried out: while `head->state` is provisional it may
     fault, and the same record come again. Returns the bits of those that did not take it.
     */
    uint32_t (*deliver)(uint32_t targets, const struct dprobes_header *head, const uint8_t *elements, uintptr_t length);
    /*
     Can records go to this target, one of the bits of `deliver`? As `facility`.
     */
    uint32_t (*target)(uint32_t target);
    /*
     Can there be this exit facility, which a program names that is about to be inserted? 0 if so, or if that is not known yet; 1 when this host
     has none, 2 when programs may not have it.
     */
    uint32_t (*facility)(uint32_t facility);
    /*
     *Hit.* A call begins of a function whose returns were asked for with `attach_return`: `*frame` has the registers with which its first
     instruction is about to be executed, with the return address on top of the stack. When it has returned the host calls `dprobes_on_return` with
     `number` and the `DPROBES_CALL_WORDS` words, which it has copied. False: it cannot be followed, and it is as if it had not been asked for.
     */
    bool (*follow_return)(uint64_t number, const struct dprobes_trap_frame *frame, const uint64_t *words);
    /*
     *Hit.* The first instruction of a function has faulted, behind a `follow_return` with this number, on the stack pointer that `*frame` has. If it is
     executed again there, that is no further call: it is followed already.
     */
    void (*follow_again)(uint64_t number, const struct dprobes_trap_frame *frame);
    /*
     *Hit.* Asks that `dprobes_reap` be called soon from a context that may sleep.
     */
    void (*request_reap)(void);
    /*
     *Hit.* The instruction at which `dprobes_set_sentry` was told `token` is about to be executed with the registers `*frame`. To have
     something else executed, change `rip`. Null when the host sets none.
     */
    void (*sentry)(uint64_t token, struct dprobes_trap_frame *frame);
    /*
     How many CPUs there may ever be; constant.
     */
    uint32_t (*cpu_count)(void);
    /*
     The area for out-of-line copies of instructions, `*start` up to but not including `*end`; constant. Executable, within 2 GiB of all text
     that may be probed, written only through `write_text`.
     */
    void (*slot_area)(uint64_t *start, uint64_t *end);
    /*
     May there be a probe at each of `count` addresses, which ascend? Fills in `prohibited` and, where that is 0, `function` and `special` of
     every candidate. There may be 100,000: the host's tables are to be walked once for all, not once for each.

     What a hit runs outside its guard against hits inside hits must be `DPROBES_PROHIBITED_EXCLUDED`: the entry of the traps, the
     functions of this table that read and write memory and name the CPU, and this library. All of the library's code is in sections
     `.text` and `.text.*`, so that a linker script can keep it together and this function compare twice:
     `__dprobes_text_start = .; *libdprobes.a:*(.text .text.*) __dprobes_text_end = .;`
     */
    void (*probeable)(struct dprobes_candidate *candidates, uintptr_t count);
    /*
     The address that offsets of a module's probes count from. `name` is `length` bytes, not terminated. 0 with `*base`
     filled in, or a negative errno when the module is not loaded.
     */
    int32_t (*module_base)(const char *name, uintptr_t length, uint64_t *base);
    /*
     The symbol `symbol`, `symbol_length` bytes, of the module `module`, `module_length` bytes, neither of them terminated: fills in where it is,
     and where what it names ends, which is the same where that is not known. The module is loaded, or `kernel`. 0, -ENOENT when there is none,
     or -EEXIST when there are several.
     */
    int32_t (*symbol)(const char *module,
                      uintptr_t module_length,
                      const char *symbol,
                      uintptr_t symbol_length,
                      uint64_t *start,
                      uint64_t *end);
    /*
     Writes `count` patches, sorted by address, to text. Returns how many were written; those after them were not. A
     patch of one byte is a single store.
     */
    uintptr_t (*write_text)(const struct dprobes_patch *patches, uintptr_t count);
    /*
     Returns when every CPU has executed a serialising instruction, and every trap handler that was running with
     interrupts off has ended.
     */
    void (*sync_cores)(void);
    /*
     Returns when, in addition, no CPU and no preempted task is inside the slot area any more that was when the call
     began.
     */
    void (*grace_period)(void);
    /*
     Keeps the host from rewriting instructions that are `DPROBES_SPECIAL_REWRITTEN`, until `unlock_rewrites`. May sleep. Null when there are
     none.
     */
    void (*lock_rewrites)(void);
    /*
     Lets the host rewrite instructions again. Null when `lock_rewrites` is.
     */
    void (*unlock_rewrites)(void);
    /*
     Has all CPUs watch `length` bytes (1, 2, 4 or 8) at `address`, a multiple of that, as watchpoint `number`, which is 0 to 3 and not set: at all
     times, or, if `process` is not 0, while they run the threads of that process, those that begin later among them.
     `kind` is what is watched for: 1 execution, 2 writing, 3 the I/O port, 4 reading or writing. Hits go to `dprobes_on_watchpoint`. 0, or
     a positive number that says why not: 1 this host has none, 2 the address is excluded, 3 none is free, and `*users` says who has them as far
     as that is known; 4 I/O breakpoints are switched off, 5 the kernel does not watch ports, 6 memory is short,
     7 it does not watch single processes, 8 there is no such process. Null when the host has none.
     */
    int32_t (*set_watchpoint)(uint32_t number,
                              uint64_t address,
                              uint32_t kind,
                              uint32_t length,
                              uint32_t process,
                              struct dprobes_watch_users *users);
    /*
     Takes a watchpoint back. When this returns no CPU runs into it any more. Null when the host has none.
     */
    void (*clear_watchpoint)(uint32_t number);
    /*
     Which file is `file`, the host's own word for the one that came with `dprobes_insert_as`? Fills in `*id`, what `stat` says of it. 0, or
     a positive number that says why it cannot be probed: 2 there is none, 3 it cannot be mapped, 6 memory is short, 7 it cannot be read,
     9 anything else. Null when the host has no probes in user space.
     */
    int32_t (*user_file)(uint64_t file, struct dprobes_file_id *id);
    /*
     Reads `length` bytes at `offset` of a file into `buffer`, as they are in the file. Returns how many there were up to its end, or a negative
     errno.
     */
    int64_t (*read_user_file)(uint64_t file, uint64_t offset, uint8_t *buffer, uintptr_t length);
    /*
     From now on calls `dprobes_on_user_hit` with `number` whenever a process comes to the instruction at `offset` of the file, in every process
     that there is and will be, and then carries the instruction out, unless `rip` has been changed. Fills in `*attached`, the host's own word
     for it. 0, or a positive number as `user_file`; besides 4: behind the end of the file; 5: the instruction is one that the host does
     not probe. If `returns`, the call of `dprobes_on_user_hit` is when a call that has begun there has returned, and `rip` where to; one that will
     not be told of, because too many are nested, is told to `dprobes_on_user_return_lost`.
     */
    int32_t (*attach_user)(uint64_t file, uint64_t offset, uint64_t number, bool returns, uint64_t *attached);
    /*
     Takes back `count` of those that `attach_user` gave. When this returns none of them is hit any more, and no `dprobes_on_user_hit` for
     one of them is under way.
     */
    void (*detach_user)(const uint64_t *attached, uintptr_t count);
    /*
     Calls of the function from `start` up to but not including `end` are to be followed to their returns: makes ready what `follow_return` needs.
     0, or a positive number that says why they cannot be: 1 this host follows none, 4 the function returns for another task or on another stack
     than it was called on, 5 memory is short. Null, as the three others, when the host follows none.
     */
    int32_t (*attach_return)(uint64_t start, uint64_t end);
    /*
     Takes one `attach_return` back. Calls under way return as they would have.
     */
    void (*detach_return)(void);
    /*
     The function at `address`, whether it may be probed or not: fills in where it begins and ends, and returns true; false when none is known.
     */
    bool (*function_at)(uint64_t address, struct dprobes_function *function);
    /*
     Memory of `size` bytes, at least 1, aligned to `align`, a power of two; null when there is none. Never called during
     a hit.
     */
    uint8_t *(*alloc)(uintptr_t size, uintptr_t align);
    /*
     Frees what `alloc` returned for this size and alignment. Never called during a hit.
     */
    void (*free)(uint8_t *memory, uintptr_t size, uintptr_t align);
    /*
     The library has found that it is broken: stops the machine with `message`, `length` bytes that are not terminated.
     Must not return.
     */
    void (*panic)(const char *message, uintptr_t length);
};

/*
 The answer to an insert or a remove, with the facts of a refusal.
 */
struct dprobes_reply {
    /*
     0, or a negative errno. Never positive.
     */
    int32_t error;
    /*
     Why: a [`Reason`] as a number; 0 on success.
     */
    uint32_t reason;
    /*
     Which point of the program, counted from 0; `u32::MAX` when it is not about one.
     */
    uint32_t point;
    /*
     More about the reason, as [`Reason`] documents.
     */
    uint32_t detail;
    /*
     The address it is about, or 0.
     */
    uint64_t address;
    /*
     More about the reason, as [`Reason`] documents.
     */
    uint64_t facts[2];
};

/*
 How [`dprobes_insert_as`] inserts a program. All zero: as [`dprobes_insert`].
 */
struct dprobes_insert_options {
    /*
     For a program in user space, the file that it is for: the host's own word for it, which is handed to `user_file` and the others; 0 if there
     is none.
     */
    uint64_t file;
    /*
     What is done with a program of the same major code for the same module: `DPROBES_INSERT_NEW`, `DPROBES_INSERT_MERGE` or
     `DPROBES_INSERT_REPLACE`.
     */
    uint32_t how;
    /*
     Where its records go, bits: 1 the ring, and those of the host's `deliver`; 0 means the ring.
     */
    uint32_t targets;
    /*
     The process in which its watchpoints watch; 0 means all.
     */
    uint32_t process;
    /*
     Must be zero.
     */
    uint32_t reserved;
};

/*
 One probe, as a query shows it. The counts of traps are disjoint: each hit is in exactly one of them.
 */
struct dprobes_probe_status {
    /*
     Major code of its program.
     */
    uint16_t major;
    /*
     Minor code.
     */
    uint16_t minor;
    /*
     A [`State`] as a number.
     */
    uint32_t state;
    /*
     The group of the point in its program.
     */
    uint16_t group;
    /*
     Its type.
     */
    uint16_t type_;
    /*
     [`PROBE_SUSPENDED`] and [`PROBE_HALTED`]: why a hit would be counted and nothing else.
     */
    uint32_t flags;
    /*
     Where the breakpoint is; for a program in user space, where in its file; 0 if it is nowhere, because its module is not loaded. It may be
     after the address asked for, past an `endbr64` and the function tracer's NOP. Or what a watchpoint
     watches: an address, or a port.
     */
    uint64_t address;
    /*
     What a watchpoint watches for: 1 execute, 2 write, 3 I/O, 4 read or write. 0 for a breakpoint.
     */
    uint32_t watch;
    /*
     How many bytes a watchpoint watches: 1, 2, 4 or 8. 0 for a breakpoint.
     */
    uint32_t watch_len;
    /*
     The process in which a watchpoint watches; 0 if it is all of them.
     */
    uint32_t process;
    /*
     0.
     */
    uint32_t reserved;
    /*
     For a program in user space the device of its file, as `st_dev` has it, else 0.
     */
    uint64_t device;
    /*
     The inode of its file, as `st_ino` has it, else 0.
     */
    uint64_t inode;
    /*
     How the instruction is resumed: 1 copied, 2 emulated, 3 stepped, 4 left to the kernel, since it is a trap
     by itself (`ud2`); 0 for a watchpoint, after which there is nothing to carry out, and in
     user space, where the kernel does that.
     */
    uint32_t resume;
    /*
     How many of the program's local variables there are; the same for all its probes.
     */
    uint32_t locals;
    /*
     Hits whose program ran.
     */
    uint64_t hits;
    /*
     Hits let pass because of `pass_count`.
     */
    uint64_t skipped;
    /*
     Hits while the group of the probe was suspended: the program did not run.
     */
    uint64_t suspended;
    /*
     Hits inside another hit on the same CPU: the program did not run. For a watchpoint also one for each CPU that has come on line since and had no debug
     register free, where nothing is watched.
     */
    uint64_t missed;
    /*
     Attempts undone because the instruction faulted.
     */
    uint64_t faulted;
    /*
     Hits after the probe was exhausted or removed itself and before the breakpoint was out.
     */
    uint64_t late;
    /*
     Programs that ended by an exception no handler took.
     */
    uint64_t exceptions;
    /*
     Log elements that did not fit.
     */
    uint64_t overflows;
    /*
     Exit facilities that programs asked for and that are not there.
     */
    uint64_t unavailable;
    /*
     Records lost because the ring of their CPU was full, or frozen.
     */
    uint64_t lost;
    /*
     Calls that could not be followed to their return, because there was no room to note one more: the program did not run.
     */
    uint64_t unfollowed;
    /*
     Records that a target other than the ring did not take, for each of these: the kernel log's rate limit was reached, the serial port
     is dead, nobody listens to the trace event.
     */
    uint64_t undelivered;
    /*
     Why the probe was refused when its module was loaded: a [`Reason`] as a number, 0 if it was not. This and what follows are as in
     [`Reply`].
     */
    uint32_t reason;
    /*
     More about the reason.
     */
    uint32_t detail;
    /*
     The address the reason is about, or 0.
     */
    uint64_t refused_at;
    /*
     More about the reason.
     */
    uint64_t facts[2];
    /*
     What the point was called in the program, such as `do_sys_openat2+0x1f`; zero-padded UTF-8, cut if longer.
     */
    uint8_t label[64];
    /*
     The module; zero-padded UTF-8.
     */
    uint8_t module[64];
};

/*
 One question of a [`CheckRequest`] and its answer.
 */
struct dprobes_point_check {
    /*
     The address asked for.
     */
    uint64_t asked;
    /*
     Written by the kernel: where the breakpoint would be, which may be after the address asked for, past an `endbr64` and the function
     tracer's NOP; 0 when a probe would be refused.
     */
    uint64_t address;
    /*
     Written by the kernel: a [`Reason`] as a number; 0 when a probe would be accepted.
     */
    uint32_t reason;
    /*
     Written by the kernel: more about the reason, as [`Reason`] documents. Without a refusal how the instruction would be resumed:
     1 copied, 2 emulated, 3 stepped, 4 left to the kernel.
     */
    uint32_t detail;
};

/*
 One map of an inserted program, as a list shows it.
 */
struct dprobes_map_status {
    /*
     What it is read by. No other map ever has the same number, also when its program is removed and inserted again.
     */
    uint64_t id;
    /*
     Major code of its program.
     */
    uint16_t major;
    /*
     Its place among the maps of its program, from 0.
     */
    uint16_t index;
    /*
     What it does with values: 1 count, 2 sum, 3 min, 4 max, 5 avg, 6 log2, 7 linear.
     */
    uint32_t kind;
    /*
     Words of a key: 0 to 4.
     */
    uint32_t keys;
    /*
     How many different keys the table of a CPU has room for.
     */
    uint32_t entries;
    /*
     For a linear histogram the first value of the first range, else 0.
     */
    int64_t min;
    /*
     For a linear histogram the value after the last of the last range, else 0.
     */
    int64_t max;
    /*
     For a linear histogram the number of values in a range, else 0.
     */
    uint64_t step;
    /*
     Bytes that it takes on all CPUs together.
     */
    uint64_t bytes;
    /*
     Updates that did not fit, because the table of their CPU had an entry for other keys in each of its places.
     */
    uint64_t dropped;
    /*
     Bytes of an entry, as [`ReadMapRequest`] describes it.
     */
    uint32_t entry_bytes;
    /*
     0.
     */
    uint32_t reserved;
    /*
     What it is called in the program; zero-padded UTF-8, cut if longer.
     */
    uint8_t name[64];
    /*
     The module; zero-padded UTF-8.
     */
    uint8_t module[64];
};

/*
 `ioctl` argument: the entries of a map, those of all CPUs merged, in ascending order of their keys as words without sign.

 An entry is its keys and its value, in words of eight bytes, little-endian. The value is, by kind of the map:

 - count: how many updates there were;
 - sum: the sum, signed, which wraps around at 64 bits;
 - min, max: the value, signed;
 - avg: how many values there were, and their exact sum, signed, of 128 bits, low half first;
 - log2: 65 counts: of values below 0, of 0, of 1, of 2 to 3, of 4 to 7, and so on up to 2^62 to 2^63-1;
 - linear: counts: of values below `min`, in each range, and from `max` on.

 Each entry is as it was at some moment of the call, and probes go on meanwhile. Where not all entries fit, the call tells how many are
 left, and is repeated with the keys of the last in `after`: keys that come in between the calls are found if they are
 greater. The kernel may write fewer entries than there is room for.
 */
struct dprobes_read_map_request {
    /*
     The map: [`MapStatus::id`].
     */
    uint64_t id;
    /*
     Address of the entries in the caller's memory.
     */
    uint64_t buffer;
    /*
     How many bytes there are for them.
     */
    uint64_t length;
    /*
     Where to go on: only entries with greater keys are written, if `resume` is 1. As many words count as the map has keys; the others
     must be 0.
     */
    uint64_t after[4];
    /*
     1 to go on after `after`, 0 to begin; then `after` must be 0 throughout.
     */
    uint32_t resume;
    /*
     Written by the kernel: bytes of each entry; also when none fits.
     */
    uint32_t entry_bytes;
    /*
     Written by the kernel: how many entries are in the buffer.
     */
    uint64_t count;
    /*
     Written by the kernel: how many there are after those. The buffer has been long enough if it is 0.
     */
    uint64_t left;
    /*
     Written by the kernel: updates that did not fit into the map; not less than when the entries were read.
     */
    uint64_t dropped;
    /*
     Must be zero.
     */
    uint64_t reserved;
};

/*
 The first page of a mapped ring, read-only: `/dev/dprobes` mapped at offset `cpu * (control + data)` for the ring of a CPU, with the sizes that
 [`RingsRequest`] has. Behind it is the ring itself, `data` bytes, a power of two.

 Positions count words of 8 bytes since the beginning; the word at a position is at its remainder by the ring's size. From `tail` to `head` are records,
 each a [`Header`](crate::record::header::Header) with its elements, in turn, which may go on at the ring's beginning where it ends. To read one, at
 position `at`, which is `tail` at first:

 1. Load `head`, acquire. If `at` is there, there is nothing more.
 2. Load the first word of the record: `state`, and `length` in its upper half.
 3. If `state` is provisional, and `at` is not below `settled` (load, acquire), the instruction may not have completed yet: stop here for now, and go on later,
    or settle by `ioctl`. If it is discarded, or the instruction is to be ignored that has faulted, pass over it.
 4. Copy the record.
 5. Acquire fence; load `tail`. If it is behind `at`, the copy is worth nothing: the writer has been there. Go on at `tail`; what has been missed is in `overwritten`.

 On x86-64 the acquire loads and the fence are plain loads that the compiler must not reorder. Who maps the ring frees nothing: unless it
 is a flight recorder it fills up until somebody calls `read`. `facts` of a record is the kernel's own business.
 */
struct dprobes_ring_control {
    /*
     Behind the newest record.
     */
    uint64_t head;
    /*
     The oldest record.
     */
    uint64_t tail;
    /*
     Provisional records before this position are final.
     */
    uint64_t settled;
    /*
     Records lost because the ring was full or frozen.
     */
    uint64_t lost;
    /*
     The same, of those that would have been provisional; goes down again when their instruction faults.
     */
    uint64_t lost_provisionally;
    /*
     Records that have given way to newer ones.
     */
    uint64_t overwritten;
    /*
     1: a flight recorder, the oldest records give way. 2: frozen, nothing is recorded.
     */
    uint64_t mode;
};

/*
 `ioctl` argument: the values of variables, which probes may be changing meanwhile. Each is read, or exchanged for 0, at one moment.
 */
struct dprobes_vars_request {
    /*
     Address of an array of [`VarStatus`] in the caller's memory.
     */
    uint64_t buffer;
    /*
     How many fit; no more than 65,536 are written.
     */
    uint32_t capacity;
    /*
     Written by the kernel: how many there are, which may be more than fit.
     */
    uint32_t count;
    /*
     Which: [`VARS_ALL`], [`VARS_LOCAL`] or [`VARS_GLOBAL`].
     */
    uint16_t scope;
    /*
     For local variables: major code of the program.
     */
    uint16_t major;
    /*
     1: set them to 0. All that are chosen must fit; if they do not, nothing is changed, and the call fails with `ENOSPC`. Not with
     [`VARS_ALL`].
     */
    uint32_t reset;
    /*
     Only those from this place on
     */
    uint32_t first;
    /*
     and so many; 0 for all of them.
     */
    uint32_t number;
    /*
     For local variables: the module of the program, zero-padded.
     */
    uint8_t module[64];
};

/*
 A variable of a program, or a global one.
 */
struct dprobes_var_status {
    /*
     Its value. When it is being reset: the one that it had before.
     */
    uint64_t value;
    /*
     Its place among the local variables of its program, or among the global ones, from 0.
     */
    uint32_t index;
    /*
     Major code of its program; 0 for a global one.
     */
    uint16_t major;
    /*
     [`VARS_LOCAL`] or [`VARS_GLOBAL`].
     */
    uint16_t scope;
    /*
     What it is called; zero-padded UTF-8, cut if longer. A local variable need not have a name.
     */
    uint8_t name[64];
    /*
     The module of its program; zero-padded UTF-8. Empty for a global one.
     */
    uint8_t module[64];
};

/*
 `ioctl` argument: insert a program.
 */
struct dprobes_insert_request {
    /*
     Address of the object in the caller's memory.
     */
    uint64_t object;
    /*
     Its length in bytes.
     */
    uint64_t length;
    /*
     The descriptor of the file that a program for user space is for, open for reading; -1 for programs of another kind, or for none.
     */
    int32_t file;
    /*
     [`INSERT_NEW`], [`INSERT_MERGE`] or [`INSERT_REPLACE`].
     */
    uint32_t how;
    /*
     Address of an array of [`ProbeStatus`] in the caller's memory: the final state of each probe of the program that was replaced.
     */
    uint64_t last;
    /*
     How many fit into `last`.
     */
    uint32_t capacity;
    /*
     Written by the kernel: how many probes the program that was replaced had, which may be more than fit.
     */
    uint32_t count;
    /*
     The process in which its watchpoints watch; 0 means all.
     */
    uint32_t process;
    /*
     Where its records go, bits of [`Targets`](crate::host::Targets): 1 the ring, 2 the kernel's log, 4 the serial port, 8 the kernel's trace; 0
     means the ring.
     */
    uint32_t targets;
    /*
     Written by the kernel, also when the call fails.
     */
    struct dprobes_reply reply;
};

/*
 `ioctl` argument: whether probes would be accepted, without inserting any. What depends on more than the address and the
 instruction there (free slots, memory, other probes of the program) is not part of the answer.
 */
struct dprobes_check_request {
    /*
     Address of an array of [`PointCheck`] in the caller's memory, of which the addresses asked for are filled in; sorted ones are
     answered fastest.
     */
    uint64_t checks;
    /*
     How many there are: at most [`CHECKS_MAX`].
     */
    uint32_t count;
    /*
     Must be zero.
     */
    uint32_t reserved;
};

/*
 `ioctl` argument: remove a program, or all.
 */
struct dprobes_remove_request {
    /*
     Major code of the program.
     */
    uint16_t major;
    /*
     [`REMOVE_ALL`]: remove everything, whatever the other fields say. [`REMOVE_ALL_NOW`]: halt everything before that, at once, even while
     another request is being carried out.
     */
    uint16_t all;
    /*
     How many fit into `last`.
     */
    uint32_t capacity;
    /*
     The module's name, zero-padded.
     */
    uint8_t module[64];
    /*
     Address of an array of [`ProbeStatus`] in the caller's memory: the final state of each probe of the program, in which
     every hit there ever was is counted. Not written when everything is removed.
     */
    uint64_t last;
    /*
     Written by the kernel: how many probes the program had, which may be more than fit.
     */
    uint32_t count;
    /*
     Not 0: only take probes of the program out, for good, and keep it, so that what its maps and variables have in the end can be read
     before it is removed: [`KEEP_ALL`] of them, or those with a minor code, a group or a type. `last` and `count` are not written then.
     */
    uint16_t keep;
    /*
     The minor code, the group or the type; otherwise 0.
     */
    uint16_t number;
    /*
     Written by the kernel, also when the call fails.
     */
    struct dprobes_reply reply;
};

/*
 `ioctl` argument: the state of all probes.
 */
struct dprobes_query_request {
    /*
     Address of an array of [`ProbeStatus`] in the caller's memory.
     */
    uint64_t buffer;
    /*
     How many fit.
     */
    uint32_t capacity;
    /*
     Written by the kernel: how many there are, which may be more than fit.
     */
    uint32_t count;
    /*
     Written by the kernel: [`INTERFACE_VERSION`].
     */
    uint32_t version;
    /*
     Must be zero.
     */
    uint32_t reserved;
};

/*
 `ioctl` argument: all maps of all programs.
 */
struct dprobes_maps_request {
    /*
     Address of an array of [`MapStatus`] in the caller's memory.
     */
    uint64_t buffer;
    /*
     How many fit.
     */
    uint32_t capacity;
    /*
     Written by the kernel: how many there are, which may be more than fit.
     */
    uint32_t count;
};

/*
 `ioctl` argument: the rings of all CPUs, and what they do when they are full.
 */
struct dprobes_rings_request {
    /*
     What to do: [`RINGS_LOOK`] or one of the others.
     */
    uint32_t action;
    /*
     Written by the kernel: as [`RingControl::mode`].
     */
    uint32_t mode;
    /*
     Written by the kernel: how many rings there are, one for each CPU that there may be.
     */
    uint32_t cpus;
    /*
     Written by the kernel: bytes in front of the ring in its mapping, with [`RingControl`] at their beginning.
     */
    uint32_t control;
    /*
     Written by the kernel: bytes of the ring.
     */
    uint64_t data;
};



/*
 All of them, in the order of their numbers.
 */
#define dprobes_refusal_ALL { dprobes_refusal_Breakpoint, dprobes_refusal_SoftwareInterrupt, dprobes_refusal_SystemCall, dprobes_refusal_SystemReturn, dprobes_refusal_Undefined, dprobes_refusal_Enclave, dprobes_refusal_ExecutionMode, dprobes_refusal_VendorDependent, dprobes_refusal_SingleStep, dprobes_refusal_InterruptShadow, }

/*
 All of them.
 */
#define dprobes_watch_kind_ALL { dprobes_watch_kind_Execute, dprobes_watch_kind_Write, dprobes_watch_kind_Io, dprobes_watch_kind_ReadWrite, }

/*
 Makes the engine. The table is copied.

 Returns 0; -EINVAL when `host` is null, of another version, or incomplete; -EBUSY when there is an engine; -ENOMEM.

 # Safety
 1. `host` is null or points to a `dprobes_host` that can be read, of which `version` and `size` are right.
 2. Its functions do what [`dprobes_host`] says of them until [`dprobes_exit`] has returned.
 */
int32_t dprobes_init(const struct dprobes_host *host);

/*
 Drops the engine and its memory; does nothing when there is none.

 # Safety
 1. [`dprobes_remove_all`] has returned 0, and no program was inserted since.
 2. The host no longer calls the trap functions, no call of one is under way on any CPU, and no other function of this
    library is being called.
 */
void dprobes_exit(void);

/*
 Has every execution of the instruction at `address` call the host's `sentry` with `token`, which is not 0. At the entry of a function
 that is after an `endbr64` and the function tracer's NOP.

 Returns 0; -EINVAL when it is not a place that can be probed, or the token is 0; -EBUSY when there is a probe or a sentry; -ENOMEM.
 */
int32_t dprobes_set_sentry(uint64_t address,
                           uint64_t token);

/*
 Takes all sentries away. When this returns 0 no CPU and no task is in a slot because of one. No program may be inserted.

 Returns 0, or -ENOMEM when nothing has changed.
 */
int32_t dprobes_clear_sentries(void);

/*
 Verifies a program and arms its probes: all of them, or none.

 Returns 0, or a negative errno with the facts in `*reply`, which is written in every case.

 # Safety
 1. `object` is null or points to `length` bytes that can be read and that nobody writes meanwhile.
 2. `reply` is null or can be written.
 */
int32_t dprobes_insert(const uint8_t *object, uintptr_t length, struct dprobes_reply *reply);

/*
 As [`dprobes_insert`], with options; null stands for none. If a program is replaced, the final state of its first `capacity` probes is in
 `last`, and `*count` says how many it had, otherwise 0.

 # Safety
 1. As [`dprobes_insert`]; `options` is null or can be read.
 2. `last` can be written for `capacity` elements, or `capacity` is 0.
 3. `count` is null or can be written.
 */
int32_t dprobes_insert_as(const uint8_t *object,
                          uintptr_t length,
                          const struct dprobes_insert_options *options,
                          struct dprobes_probe_status *last,
                          uintptr_t capacity,
                          uintptr_t *count,
                          struct dprobes_reply *reply);

/*
 Removes the program `major` of the module called `name`, `length` bytes that are not terminated, with all its probes.

 Returns 0, or a negative errno with the facts in `*reply`, which is written in every case. On failure nothing has changed. On
 success the final state of its first `capacity` probes is in `last`, and `*count` says how many it had.

 # Safety
 1. `name` is null or points to `length` bytes that can be read and that nobody writes meanwhile.
 2. `last` can be written for `capacity` elements, or `capacity` is 0.
 3. `count` and `reply` are null or can be written.
 */
int32_t dprobes_remove(const uint8_t *name,
                       uintptr_t length,
                       uint16_t major,
                       struct dprobes_probe_status *last,
                       uintptr_t capacity,
                       uintptr_t *count,
                       struct dprobes_reply *reply);

/*
 Removes every program, and waits until no CPU and no task needs anything of them.

 Returns 0, or a negative errno with the facts in `*reply`, which is written in every case. On failure nothing has changed:
 the probes are still armed, and the engine must stay.

 # Safety
 `reply` is null or can be written.
 */
int32_t dprobes_remove_all(struct dprobes_reply *reply);

/*
 Takes probes of a program out, for good, and keeps the program until it is removed: what they have counted does not change any
 more. When this returns they do not fire any more. `which` is `DPROBES_KEEP_ALL`, or says what `number` is: their minor code, group or type.

 Returns 0, or a negative errno with the facts in `*reply`, which is written in every case. On failure nothing has changed.

 # Safety
 1. `name` is null or points to `length` bytes that can be read and that nobody writes meanwhile.
 2. `reply` is null or can be written.
 */
int32_t dprobes_disarm(const uint8_t *name,
                       uintptr_t length,
                       uint16_t major,
                       uint16_t which,
                       uint16_t number,
                       struct dprobes_reply *reply);

/*
 Has all hits do nothing from now on but carry their instruction out, until [`dprobes_remove_all`] has returned 0. For emergencies: it may be
 called in any context, and beside every other function but [`dprobes_exit`].
 */
void dprobes_halt(void);

/*
 Writes the state of the first `capacity` probes to `buffer`, and returns how many there are, which may be more, or a
 negative errno.

 # Safety
 `buffer` can be written for `capacity` elements, or `capacity` is 0.
 */
int64_t dprobes_query(struct dprobes_probe_status *buffer, uintptr_t capacity);

/*
 Fills in, for each of `count` checks, whether a probe at its address would be accepted, and if not why. Nothing is changed.

 Returns 0, or a negative errno: -EINVAL for more than `DPROBES_CHECKS_MAX`; -ENOMEM.

 # Safety
 `checks` is null or points to `count` elements that can be read and written and that nobody else uses meanwhile.
 */
int32_t dprobes_check(struct dprobes_point_check *checks,
                      uintptr_t count);

/*
 Takes the breakpoints of exhausted and self-removed probes out. The host calls it after `request_reap`.
 */
void dprobes_reap(void);

/*
 Tells the engine that the module called `name`, `length` bytes that are not terminated, is being loaded, and that none of it has been
 executed: the probes of the programs that wait for it are in when this returns, or have a reason why not. Its text, that of its
 initialisation too, must be as it will be executed, and the host's `probeable`, `module_base` and `symbol` must know it.

 # Safety
 `name` is null or points to `length` bytes that can be read and that nobody writes meanwhile.
 */
void dprobes_module_coming(const uint8_t *name,
                           uintptr_t length);

/*
 Tells the engine that the initialisation of the module called `name` has ended: its probes in the text of that, from `start` up to `end`, are
 gone when this returns. That text must still be there.

 # Safety
 As [`dprobes_module_coming`].
 */
void dprobes_module_live(const uint8_t *name,
                         uintptr_t length,
                         uint64_t start,
                         uint64_t end);

/*
 Tells the engine that the text from `start` up to `end` is being unloaded: its probes are gone when this returns. The
 text must still be there. Of a module whose initialisation has failed that text is told first, the one that
 `module_base` gives last.
 */
void dprobes_module_going(uint64_t start, uint64_t end);

/*
 Puts `entry` in front of the handler of breakpoint exceptions. `*chain` is set to that handler's address before `entry` can run; `entry`
 calls [`dprobes_on_breakpoint`](crate::dprobes_on_breakpoint) for breakpoints of kernel mode, and jumps there with all others and with
 those that are not the library's, registers and stack as the CPU left them.

 0; `-EOPNOTSUPP` when the CPU has no CMPXCHG16B, or the gate is not an interrupt gate that is present; `-EBUSY` when it is installed already, or somebody
 has changed the gate meanwhile; `-EINVAL` for null.

 # Safety
 1. `idt` is null or a writable mapping of the descriptor table of all CPUs, for the time of the call.
 2. No other CPU takes a breakpoint exception during the call.
 3. `entry` can take the exception wherever it occurs. `chain` is null or stays valid and unchanged until
    [`dprobes_restore_gate`] has succeeded and no CPU is in `entry` any more.
 4. Kernel code does not use the 128 bytes below its stack pointer.
 */
int32_t dprobes_install_gate(void *idt,
                             uint64_t entry,
                             uint64_t *chain);

/*
 Puts the handler back that was there before [`dprobes_install_gate`]. A CPU may still be in the entry then.

 0; `-ENOENT` when it is not installed; `-EBUSY` when somebody has put another handler in front of it: it stays installed.

 # Safety
 Requirements 1 and 2 of [`dprobes_install_gate`].
 */
int32_t dprobes_restore_gate(void *idt);

/*
 The library's hooks, for `gkhi_add_image`, before anybody may register on them: `dprobes_exit_to`, a generic hook that
 returns no value, with the arguments `const struct dprobes_exit_to *` and `struct dprobes_trap_frame *`. A program that ends with
 `exit_to` passes it. An exit that is the facility returns; if none does, the host's `exit_to` is asked. An exit in C leaves its
 `signature` null.

 The registry increments counters relative to GS, each CPU its own. The library is unloaded only after `gkhi_remove_image` has
 returned 0. A program that finds its sites between `__start_gkhi_sites` and `__stop_gkhi_sites` has this hook among them, and
 does not call this.
 */
const struct gkhi_image *dprobes_hooks(void);

/*
 Writes the state of the first `capacity` maps to `buffer`, and returns how many there are, which may be more, or a negative errno.

 # Safety
 `buffer` can be written for `capacity` elements, or `capacity` is 0.
 */
int64_t dprobes_maps(struct dprobes_map_status *buffer,
                     uintptr_t capacity);

/*
 Writes entries of a map to `buffer`, as `dprobes_read_map_request` describes them. What is asked for is in `*request`: `id`, `resume`
 and `after`; its `buffer` and `length` are of no account. What was found is written there: `entry_bytes`, `count`, `left` and
 `dropped`.

 Returns 0, or a negative errno: -ENOENT when no map has this number; -EINVAL when the request is not as it should be; -ENOMEM;
 -EAGAIN when an entry changed all the time, and the call is best repeated. `*request` is not changed then.

 # Safety
 1. `request` is null or can be read and written.
 2. `buffer` can be written for `length` bytes, or `length` is 0. It overlaps nothing else that is being used.
 */
int32_t dprobes_read_map(struct dprobes_read_map_request *request,
                         uint8_t *buffer,
                         uintptr_t length);

/*
 Moves final records of one CPU to `buffer`, as many whole ones as fit, and returns how many bytes that are, or a negative
 errno.

 # Safety
 1. `buffer` can be read and written for `length` bytes, which are initialised, and nobody else uses it meanwhile.
 2. No other call with the same `cpu` is under way.
 */
int64_t dprobes_read(uint32_t cpu,
                     uint8_t *buffer,
                     uintptr_t length);

/*
 Does some CPU hold records that are not known to be final? [`dprobes_settle`] makes them so.
 */
bool dprobes_has_provisional(void);

/*
 Waits for a grace period, after which every record that was there when the call began is final. Sleeps. One caller at
 a time.
 */
void dprobes_settle(void);

/*
 Has the rings of all CPUs be flight recorders, in which the oldest records give way to those that do not fit; or, as at first, drop these.
 */
void dprobes_keep_newest(bool newest);

/*
 Records nothing from now on; what comes is counted as lost. It may be called in any context.
 */
void dprobes_freeze(void);

/*
 Records again.
 */
void dprobes_thaw(void);

/*
 As `mode` of [`RingControl`].
 */
uint64_t dprobes_rings_mode(void);

/*
 Where the ring of a CPU is, to be mapped read-only: `*control` is a page that has nothing else in it, `*data` has `*length` bytes, a power of two, and
 begins a page if the host's `alloc` gives what is larger than a page whole ones. It stays there until [`dprobes_exit`](crate::dprobes_exit). 0, or a negative errno.

 # Safety
 All three can be written.
 */
int32_t dprobes_ring_memory(uint32_t cpu,
                            const struct dprobes_ring_control **control,
                            const uint64_t **data,
                            uintptr_t *length);

/*
 Copies the newest records of a CPU to `buffer`, as many whole ones as fit, and leaves them in the ring: for a machine that is about to stop. Nobody
 may be writing records. Those whose instruction is not known to have completed are provisional. Returns how many bytes that are, or a negative errno.

 # Safety
 `buffer` can be read and written for `length` bytes, which are initialised, and nobody else uses it meanwhile.
 */
int64_t dprobes_save(uint32_t cpu,
                     uint8_t *buffer,
                     uintptr_t length);

/*
 A breakpoint exception (#BP). `frame` holds the registers as the CPU left them: `rip` after the `int3`.

 True when it was the engine's; the frame then says where to resume. False: the breakpoint is somebody else's, and the
 frame is as it was.

 # Safety
 1. `frame` points to the interrupted registers, which nobody else uses until this returns.
 2. Interrupts are off, and stay off until the interrupted code is resumed from the frame.
 */
bool dprobes_on_breakpoint(struct dprobes_trap_frame *frame);

/*
 A debug exception (#DB). `dr6` is the debug status as the CPU reported it, bits in positive polarity (SDM volume 3,
 18.2.3); what the engine has dealt with is cleared in it, and the host writes the rest back.

 True when that was all there was. False: the trap is somebody else's too. The bits that are left say why, and the frame is
 as if the engine were not there.

 # Safety
 As [`dprobes_on_breakpoint`]; `dr6` is null or points to a number that nobody else uses until this returns.
 */
bool dprobes_on_debug(struct dprobes_trap_frame *frame,
                      uint64_t *dr6);

/*
 Where code that is `length` bytes long at `address` branches to by itself: writes the first `capacity` targets outside of it to `targets`,
 and returns how many there are, which may be more. For a host that has to know what runs on the way of a trap.

 # Safety
 1. `address` is the beginning of an instruction, and `length` bytes there can be read.
 2. `targets` can be written for `capacity` elements, or `capacity` is 0.
 */
uintptr_t dprobes_branches(uint64_t address,
                           uintptr_t length,
                           uint64_t *targets,
                           uintptr_t capacity);

/*
 What the breakpoint at `address` stands for: fills `bytes`, which has room for `DPROBES_INSTRUCTION_MAX`, with the probed instruction,
 and returns its length; 0 when nothing is probed there. For whoever shows code in a trap, with interrupts off.

 # Safety
 `bytes` is null or may be written for `DPROBES_INSTRUCTION_MAX` bytes.
 */
uintptr_t dprobes_instruction(uint64_t address,
                              uint8_t (*bytes)[DPROBES_INSTRUCTION_MAX]);

/*
 A process has come to the instruction at the place that was attached as `number` with `attach_user`. `frame` holds its registers, `rip` the
 address of the instruction. When this returns they are what the process goes on with; where `rip` has been changed the instruction is not to
 be carried out.

 # Safety
 As [`dprobes_on_breakpoint`]; in the context of the process.
 */
void dprobes_on_user_hit(uint64_t number,
                         struct dprobes_trap_frame *frame);

/*
 A call at the place that was attached as `number`, for its returns, will return without a `dprobes_on_user_hit`: it is counted as unfollowed. With
 interrupts off.
 */
void dprobes_on_user_return_lost(uint64_t number);

/*
 The task with this cookie, as in `dprobes_task`, has ended, and comes to no probe in user space any more. With interrupts off. To be called by a
 host that has these, for every task.
 */
void dprobes_on_task_ended(uint64_t cookie);

/*
 A call that is followed has returned: `number` and `words` are what `follow_return` was given. `frame` holds the registers with which the
 caller goes on, `rip` the address that the call has returned to. When this returns general registers may have been changed, but for
 `rip` and `rsp`.

 # Safety
 As [`dprobes_on_breakpoint`]; `words` may be read for `DPROBES_CALL_WORDS` words.
 */
void dprobes_on_return(uint64_t number,
                       struct dprobes_trap_frame *frame,
                       const uint64_t *words);

/*
 A `ud2` or `ud1` of kernel code raised #UD: to be called before anything else is done about it, by a host that answers `DPROBES_SPECIAL_REPORTED`.
 `frame` holds the registers as the CPU left them: `rip` at the instruction.

 True when a program has sent the CPU elsewhere: the host resumes from the frame, and does nothing about the exception.

 # Safety
 As [`dprobes_on_breakpoint`].
 */
bool dprobes_on_undefined(struct dprobes_trap_frame *frame);

/*
 Does a breakpoint stand at `address` for an instruction that is `DPROBES_SPECIAL_REWRITTEN`? Then it must not be written over: the
 instruction's first byte is in `*first`, the others are in text. For whoever rewrites such an instruction, while that is locked
 (`lock_rewrites`), with interrupts off.

 # Safety
 `first` is null or may be written.
 */
bool dprobes_rewritten(uint64_t address,
                       uint8_t *first);

/*
 The instruction for which there is a breakpoint at `address` (`dprobes_rewritten`) becomes the one at the beginning of `bytes`: hits carry
 that out from now on. The caller then writes all bytes but the first and synchronises all CPUs. Contexts as there.

 False when it cannot be emulated: the caller then has to write all bytes, and the breakpoint is gone.

 # Safety
 `bytes` may be read for `length` bytes.
 */
bool dprobes_rewrite(uint64_t address,
                     const uint8_t *bytes,
                     uintptr_t length);

/*
 A CPU has come on line that does not watch for watchpoint `number`, because no debug register was free there: one hit is counted as missed,
 whatever it misses. With interrupts off.
 */
void dprobes_on_watchpoint_lost(uint32_t number);

/*
 Watchpoints were hit: a bit for each in `watchpoints`, the lowest for number 0. `frame` holds the registers as the CPU left them: behind
 the instruction, or at the instruction if that is what is watched. When this returns the frame says where to resume.

 # Safety
 As [`dprobes_on_breakpoint`].
 */
void dprobes_on_watchpoint(struct dprobes_trap_frame *frame,
                           uint8_t watchpoints);

/*
 Any other exception of kernel code. When the copy of an instruction faulted in its slot, the frame is changed to name
 the original instruction, and the result is true. The host then reports the fault, or recovers from it, by the frame.

 # Safety
 As [`dprobes_on_breakpoint`].
 */
bool dprobes_on_fault(struct dprobes_trap_frame *frame);

/*
 Writes the first `capacity` of the variables that `*request` chooses to `buffer`, and sets them to 0 if it says so; its `buffer` and
 `capacity` are of no account. How many there are, which may be more, is written to its `count`, also when the call fails with -ENOSPC.

 Returns 0, or a negative errno: -ENOENT when there is no such program, or it does not have the first of them; -EINVAL when the request is not as it
 should be; -ENOSPC when they were to be reset and there are more.

 # Safety
 1. `request` is null or can be read and written.
 2. `buffer` can be written for `capacity` elements, or `capacity` is 0. It overlaps nothing else that is being used.
 */
int32_t dprobes_vars(struct dprobes_vars_request *request,
                     struct dprobes_var_status *buffer,
                     uintptr_t capacity);

#endif  /* DPROBES_H */
