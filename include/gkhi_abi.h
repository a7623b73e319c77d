/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * GKHI: the C interface of the registry of hooks. Generated from the Rust sources by `./x headers`; do not edit. Include gkhi.h, which has the
 * records named here and the macros that make them.
 */

#ifndef GKHI_ABI_H
#define GKHI_ABI_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stdint.h>
#endif

struct gkhi_counters;
struct gkhi_exit;
struct gkhi_image;
struct gkhi_write;


/*
 Answer of an exit: the next exit, or the hooked code when this was the last.
 */
#define GKHI_CONTINUE 0

/*
 Answer of an exit: the hooked code; exits after this one are not called.
 */
#define GKHI_TERMINATE 1

/*
 Answer of an exit on a returning hook: the hooked function returns.
 */
#define GKHI_RETURN -1

/*
 Option of an exit: before all others. A second such exit on a hook is refused.
 */
#define GKHI_PRIORITY_FIRST 4

/*
 Option of an exit: after all others. A second such exit on a hook is refused.
 */
#define GKHI_PRIORITY_LAST 8

/*
 Option of an exit: before those that are registered already, but for a first one. Without it: after them, but for a last one.
 */
#define GKHI_QUEUE_LIFO 16

/*
 Option of an exit: while it is armed no other exit of the hook is. Kind of a hook: it takes one exit only.
 */
#define GKHI_EXCLUSIVE 536870912

/*
 Kind of a hook: its sites are patched.
 */
#define GKHI_KIND_PATCHED 0

/*
 Kind of a hook: its exits may make the hooked function return.
 */
#define GKHI_KIND_RETURNING 1

/*
 Kind of a hook: its sites test a flag in memory.
 */
#define GKHI_KIND_GENERIC 2

/*
 The longest name of a hook or an exit, in bytes without the zero.
 */
#define GKHI_NAME_MAX 63

/*
 The version of [`gkhi_host`]; [`gkhi_start`](crate::gkhi_start) refuses any other.
 */
#define GKHI_HOST_VERSION 1

/*
 Why a call did nothing. -1, -2 and -4 are those of the original GKHI.
 */
enum gkhi_error
#if __STDC_VERSION__ >= 202311L
  : int32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     The hook is exclusive and has an exit.
     */
    GKHI_ERROR_HOOK_TAKEN = -1,
    /*
     Another exit on the hook is the first.
     */
    GKHI_ERROR_FIRST_TAKEN = -2,
    /*
     Another exit on the hook is the last.
     */
    GKHI_ERROR_LAST_TAKEN = -4,
    /*
     Another exit on the hook, or another hook, has this name.
     */
    GKHI_ERROR_NAME_TAKEN = -5,
    /*
     Not a name: 1 to 63 printable characters without space or slash.
     */
    GKHI_ERROR_BAD_NAME = -6,
    /*
     Options that mean nothing, or first and last at once.
     */
    GKHI_ERROR_BAD_OPTIONS = -7,
    /*
     The head of a hook has bits that mean nothing, or more than eight arguments.
     */
    GKHI_ERROR_BAD_HOOK = -8,
    /*
     The exit has no function.
     */
    GKHI_ERROR_NO_FUNCTION = -9,
    /*
     The exit was made for another prototype.
     */
    GKHI_ERROR_WRONG_PROTOTYPE = -10,
    /*
     The exit is registered already.
     */
    GKHI_ERROR_ALREADY_REGISTERED = -11,
    /*
     The exit is not registered.
     */
    GKHI_ERROR_NOT_REGISTERED = -12,
    /*
     An exit that this one requires would not be armed.
     */
    GKHI_ERROR_REQUIRES = -13,
    /*
     Two exits of which one conflicts with the other would be armed.
     */
    GKHI_ERROR_CONFLICT = -14,
    /*
     Another exit would be armed besides an exclusive one.
     */
    GKHI_ERROR_EXCLUSIVE = -15,
    /*
     The caller is inside an exit of this hook, and would wait for itself. The exit is disarmed.
     */
    GKHI_ERROR_INSIDE = -16,
    /*
     There is no memory for counters.
     */
    GKHI_ERROR_NO_MEMORY = -17,
    /*
     The image is in the registry already.
     */
    GKHI_ERROR_IMAGE_KNOWN = -18,
    /*
     The image is not in the registry.
     */
    GKHI_ERROR_IMAGE_UNKNOWN = -19,
    /*
     The bytes of a site are not as expected: something else has patched them.
     */
    GKHI_ERROR_TEXT_CHANGED = -20,
    /*
     There is no text at a site.
     */
    GKHI_ERROR_TEXT_UNREADABLE = -21,
    /*
     The text of a site could not be written.
     */
    GKHI_ERROR_TEXT_UNWRITABLE = -22,
    /*
     A site's jump does not reach its code out of line.
     */
    GKHI_ERROR_TEXT_TOO_FAR = -23,
    /*
     The exit, hook or image belongs to another registry.
     */
    GKHI_ERROR_OTHER_REGISTRY = -24,
    /*
     Text could not be written half way, nor put back: sites are breakpoints that are passed as dormant ones, until the next change.
     */
    GKHI_ERROR_TEXT_STUCK = -25,
    /*
     The registry cannot be had: the caller may not sleep, or somebody has been waiting for an exit to end for too long, perhaps for
     the caller's.
     */
    GKHI_ERROR_BUSY = -64,
    /*
     There is no registry: [`gkhi_start`](crate::gkhi_start) has not succeeded.
     */
    GKHI_ERROR_NOT_STARTED = -65,
    /*
     A pointer is null, or the host table is not one that this library understands.
     */
    GKHI_ERROR_INVALID = -66,
};
#if __STDC_VERSION__ >= 202311L
typedef enum gkhi_error gkhi_error;
#else
typedef int32_t gkhi_error;
#endif // __STDC_VERSION__ >= 202311L

/*
 Where an exit is in its life.
 */
enum gkhi_state
#if __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // __STDC_VERSION__ >= 202311L
 {
    /*
     Its hook is not there; it will not be armed when it comes.
     */
    GKHI_STATE_WAITING = 0,
    /*
     Its hook is not there; it will be armed when it comes.
     */
    GKHI_STATE_WAITING_ARMED = 1,
    /*
     On its hook, not called.
     */
    GKHI_STATE_REGISTERED = 2,
    /*
     On its hook, called.
     */
    GKHI_STATE_ARMED = 3,
};
#if __STDC_VERSION__ >= 202311L
typedef enum gkhi_state gkhi_state;
#else
typedef uint32_t gkhi_state;
#endif // __STDC_VERSION__ >= 202311L

/*
 What the surrounding kernel provides. Every function must be given. All are called from the caller of a function of this library, in a
 context that may sleep; a pass through a hook calls none of them.
 */
struct gkhi_host {
    /*
     `GKHI_HOST_VERSION`.
     */
    uint32_t version;
    /*
     `sizeof(struct gkhi_host)`.
     */
    uint32_t size;
    /*
     Takes the lock that makes one caller at a time of all of this library's functions but `gkhi_on_breakpoint`. False when it
     cannot be had: the caller may not sleep, or may be in an exit that the lock's holder waits for.
     */
    bool (*lock)(void);
    /*
     Gives it back.
     */
    void (*unlock)(void);
    /*
     Called without the lock when hooks or exits may have come or gone.
     */
    void (*changed)(void);
    /*
     Lets others run for a moment: something is being waited for, with the lock held.
     */
    void (*relax)(void);
    /*
     Copies text. 0, or not 0 when there is no text.
     */
    int32_t (*read_text)(uintptr_t address, uint8_t *bytes, uintptr_t length);
    /*
     Writes text through an alias that is writable and not executable. Returns how many of the writes were done; those after
     them were not. One byte is a single store.
     */
    uintptr_t (*write_text)(const struct gkhi_write *writes, uintptr_t count);
    /*
     Returns when every CPU has executed a serialising instruction, and has left the breakpoint handler that it was in.
     */
    void (*sync_cores)(void);
    /*
     How many CPUs there may ever be; constant.
     */
    uint32_t (*cpu_count)(void);
    /*
     A `struct gkhi_counters` for each CPU, all zero: a CPU's is at its GS base plus the result. 0 when there is no memory.
     */
    uintptr_t (*alloc_counters)(void);
    /*
     Takes them back.
     */
    void (*free_counters)(uintptr_t offset);
    /*
     Where a CPU's are; null for a CPU that cannot be.
     */
    const struct gkhi_counters *(*counters)(uint32_t cpu, uintptr_t offset);
    /*
     The stack that the caller runs on, `*start` up to but not including `*end`.
     */
    void (*stack)(uintptr_t *start, uintptr_t *end);
    /*
     The library has found that it is broken: stops the machine with `message`, `length` bytes that are not terminated. Must
     not return.
     */
    void (*panic)(const char *message, uintptr_t length);
};

/*
 The facts of a refusal.
 */
struct gkhi_failure {
    /*
     A `gkhi_error`.
     */
    int32_t error;
    /*
     What was wrong, where, and what to do, in English: ASCII, terminated.
     */
    uint8_t message[252];
};

/*
 Names an exit.
 */
struct gkhi_exit_name {
    /*
     The hook's name.
     */
    const char *hook;
    /*
     The exit's.
     */
    const char *exit;
};

/*
 A hook, for listing. Pointers are valid during the call that hands it over.
 */
struct gkhi_hook_status {
    /*
     Its name.
     */
    const char *name;
    /*
     Its prototype as text; empty when it is not checked.
     */
    const char *signature;
    /*
     Its kind, as `GKHI_KIND_*` and `GKHI_EXCLUSIVE`.
     */
    uint32_t kind;
    /*
     How many arguments it has.
     */
    uint32_t arguments;
    /*
     How many sites it has.
     */
    uint32_t sites;
    /*
     How many of them jump now.
     */
    uint32_t jumping;
    /*
     How many exits are registered on it.
     */
    uint32_t exits;
    /*
     How many of them are armed.
     */
    uint32_t armed;
    /*
     Passes that are in it now, about.
     */
    uint64_t inside;
};

/*
 A site, for listing.
 */
struct gkhi_site_status {
    /*
     Its hook's name.
     */
    const char *hook;
    /*
     Where it is; 0: it is not patched.
     */
    uintptr_t address;
    /*
     Does it jump now?
     */
    bool jumps;
};

/*
 An exit, for listing.
 */
struct gkhi_exit_status {
    /*
     Its hook's name.
     */
    const char *hook;
    /*
     Its name.
     */
    const char *name;
    /*
     A `gkhi_state`.
     */
    uint32_t state;
    /*
     Its place on the hook: 1 is called first. 0 while it waits.
     */
    uint32_t order;
    /*
     Its options, as `GKHI_PRIORITY_FIRST` and so on.
     */
    uint32_t options;
    /*
     Must be ignored.
     */
    uint32_t reserved;
    /*
     Calls so far. Exact when the exit is not armed and no pass is in it.
     */
    uint64_t calls;
    /*
     Of a watched exit: calls that took more than `watch` cycles.
     */
    uint64_t slow;
    /*
     Of a watched exit: calls while another of its calls was running on the same CPU.
     */
    uint64_t nested;
    /*
     Its limit in TSC cycles; 0 when it is not watched.
     */
    uint64_t watch;
};

/*
 What `gkhi_visit` calls, under the host's lock. Functions that are null are not called.
 */
struct gkhi_visitor {
    /*
     Handed to each function.
     */
    void *context;
    /*
     For each hook.
     */
    void (*hook)(void *context, const struct gkhi_hook_status *hook);
    /*
     For each of its sites, after it.
     */
    void (*site)(void *context, const struct gkhi_site_status *site);
    /*
     For each of its exits, after those, in their order; at the end for each exit that waits for its hook.
     */
    void (*exit)(void *context, const struct gkhi_exit_status *exit);
};

/*
 Makes the registry. The table is copied. 0; `GKHI_ERROR_INVALID` when `host` is null, of another version, or incomplete;
 `GKHI_ERROR_BUSY` when there is one.

 # Safety
 1. `host` is null or points to a `gkhi_host` that can be read, of which `version` and `size` are right.
 2. Its functions do what [`gkhi_host`] says of them until [`gkhi_stop`] has returned.
 */
int32_t gkhi_start(const struct gkhi_host *host);

/*
 Drops the registry.

 # Safety
 No exit is registered and no image known. No function of this library is being called, and none is before [`gkhi_start`].
 */
void gkhi_stop(void);

/*
 For the kernel's breakpoint exception, in any context: `address` is that of the `int3`. Where to go on if a site is being patched
 there; 0 if the breakpoint is somebody else's.
 */
uintptr_t gkhi_on_breakpoint(uintptr_t address);

/*
 Makes the sites of an image known, and their hooks; exits that wait for those are connected, and armed if they are to be.
 0, or a negative `gkhi_error`: nothing is known of the image then.

 # Safety
 `image` is null, or points to a record that names the sections `gkhi_sites` and `gkhi_calls` of loaded code; all of them, and the heads
 of the hooks, stay until [`gkhi_remove_image`] has returned 0.
 */
int32_t gkhi_add_image(const struct gkhi_image *image);

/*
 Forgets the sites of an image. Exits on hooks that have no other site wait for them to come again. Waits until no pass is in
 such a hook. 0, or a negative `gkhi_error`: the image is known as before then.

 # Safety
 `image` is null or points to a record that stays while this runs.
 */
int32_t gkhi_remove_image(const struct gkhi_image *image);

/*
 Makes an exit known; it is not called yet. Where its hook is not there it waits for it, by name. 0, or a negative `gkhi_error`.

 # Safety
 `exit` is null, or points to a record as `gkhi.h` makes it, which stays where it is, and whose functions may be called, until
 [`gkhi_deregister`] has returned 0.
 */
int32_t gkhi_register(struct gkhi_exit *exit);

/*
 Disarms an exit if it is armed, and returns when no CPU and no task is in it. 0, or a negative `gkhi_error`;
 `GKHI_ERROR_INSIDE` or `GKHI_ERROR_BUSY` when called from inside it: deregister it later, from outside.

 # Safety
 `exit` is null or points to a record that can be read.
 */
int32_t gkhi_deregister(struct gkhi_exit *exit);

/*
 Arms one exit: as `gkhi_arm_set`.

 # Safety
 `exit` is null or points to a record that can be read.
 */
int32_t gkhi_arm(struct gkhi_exit *exit);

/*
 Disarms one exit: as `gkhi_disarm_set`.

 # Safety
 `exit` is null or points to a record that can be read.
 */
int32_t gkhi_disarm(struct gkhi_exit *exit);

/*
 Arms all of these exits at one moment, whatever hooks they are on, or none of them. 0, or a negative `gkhi_error`, and then
 `*failure`, unless null, says why.

 # Safety
 1. `exits` is null or points to `count` pointers, each null or to a record that can be read.
 2. `failure` is null or can be written.
 */
int32_t gkhi_arm_set(struct gkhi_exit *const *exits,
                     uintptr_t count,
                     struct gkhi_failure *failure);

/*
 Disarms all of these exits at one moment, or none of them; as `gkhi_arm_set`.

 # Safety
 As [`gkhi_arm_set`].
 */
int32_t gkhi_disarm_set(struct gkhi_exit *const *exits, uintptr_t count, struct gkhi_failure *failure);

/*
 Arms, or disarms, at one moment all exits that are named, or none of them; as `gkhi_arm_set`.

 # Safety
 1. `names` points to `count` names, which are terminated strings.
 2. `scratch` can be written for `count` pointers.
 3. `failure` is null or can be written.
 */
int32_t gkhi_arm_names(const struct gkhi_exit_name *names,
                       uintptr_t count,
                       const struct gkhi_exit **scratch,
                       bool arm,
                       struct gkhi_failure *failure);

/*
 Lists everything. 0, or a negative `gkhi_error`.

 # Safety
 `visitor` points to a record whose functions may be called with its context; they call no function of this library.
 */
int32_t gkhi_visit(const struct gkhi_visitor *visitor);

/*
 Fills in the state of one exit. 0, or `GKHI_ERROR_NOT_REGISTERED`. The names in it are those given.

 # Safety
 1. `hook` and `exit` are terminated strings.
 2. `found` can be written.
 */
int32_t gkhi_find_exit(const char *hook, const char *exit, struct gkhi_exit_status *found);

#endif  /* GKHI_ABI_H */
