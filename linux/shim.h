/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The shim between Linux and the engine: what its files share.
 *
 * Two kinds of functions live here, and their names tell them apart:
 *
 *   dprobes_host_*   called by the engine through its table. Those marked "hit" are called from a trap, with interrupts off,
 *                    possibly inside the page-fault handler or an NMI: no sleeping, no locks, no allocation.
 *   dprobes_*        everything else: process context, unless it says otherwise.
 *
 * Nothing in this module can be probed: its text is excluded by probeable.c, by address for the engine, and by
 * NOKPROBE_SYMBOL for kprobes where a trap gets to.
 */
#ifndef DPROBES_LINUX_SHIM_H
#define DPROBES_LINUX_SHIM_H

#include <linux/kdebug.h>
#include <linux/types.h>
#include <dprobes.h>

#include "slots.h"

struct exception_table_entry;
struct file;
struct kprobe;
struct kretprobe_blackpoint;
struct module;
struct mutex;
enum bug_trap_type;
struct bug_entry;
enum jump_label_type;
struct jump_entry;
struct list_head;
struct static_call_site;
struct perf_event;
struct pt_regs;
struct rethook;
struct rethook_node;
struct tracepoint;
struct vm_area_struct;

/* symbols.c: what the kernel has but does not export. */
struct dprobes_symbols {
	/* Which text is whose. */
	int (*core_kernel_text)(unsigned long addr);
	struct module *(*__module_text_address)(unsigned long addr);
	const char *(*kallsyms_lookup)(unsigned long addr, unsigned long *size, unsigned long *offset, char **modname,
				       char *name);
	unsigned long (*kallsyms_lookup_name)(const char *name);
	int (*lookup_symbol_name)(unsigned long addr, char *name);
	struct module *(*find_module)(const char *name);
	bool (*within_kprobe_blacklist)(unsigned long addr);
	unsigned long (*ftrace_location_range)(unsigned long start, unsigned long end);
	void (*jump_label_lock)(void);
	void (*jump_label_unlock)(void);
	int (*jump_label_text_reserved)(void *start, void *end);
	int (*alternatives_text_reserved)(void *start, void *end);
	struct kprobe *(*get_kprobe)(void *addr);
	const struct exception_table_entry *(*search_exception_tables)(unsigned long addr);

	/* The kernel's own tables of what is reserved. */
	struct list_head *kprobe_blacklist;
	struct jump_entry *__start___jump_table;
	struct jump_entry *__stop___jump_table;
	struct static_call_site *__start_static_call_sites;
	struct static_call_site *__stop_static_call_sites;

	/* Where text that nobody may probe begins and ends. */
	char *_text;
	char *__noinstr_text_start;
	char *__noinstr_text_end;
	char *__entry_text_start;
	char *__entry_text_end;
	char *__kprobes_text_start;
	char *__kprobes_text_end;

	/* The locks that others change text under. */
	struct mutex *text_mutex;
	struct mutex *kprobe_mutex;

	/* hit: faults */
	struct tracepoint *__tracepoint_page_fault_kernel;
	int (*fixup_exception)(struct pt_regs *regs, int trapnr, unsigned long error_code, unsigned long fault_addr);

	/* hit: memory */
	bool (*nmi_uaccess_okay)(void);

#ifdef CONFIG_UPROBES
	struct tracepoint *__tracepoint_sched_process_exit;
	/* Ends what uprobes have begun. */
	void (*uprobe_notify_resume)(struct pt_regs *regs);
#endif
	/* Which kernels have, and returns are probed with: see returns.c. */
	struct dprobes_returns_symbols {
		/* What they take depends on the version. */
		void *rethook_alloc;
		void *rethook_add_node;
		void (*rethook_free)(struct rethook *rethook);
		struct rethook_node *(*rethook_try_get)(struct rethook *rethook);
		void (*rethook_hook)(struct rethook_node *node, struct pt_regs *regs, bool mcount);
		const struct kretprobe_blackpoint *kretprobe_blacklist;
	} returns;

	/* What looks at probed instructions: see undefined.c and rewrite.c. */
	enum bug_trap_type (*report_bug)(unsigned long address, struct pt_regs *regs);
	/* NULL where every warning is reported by the other. */
	enum bug_trap_type (*report_bug_entry)(struct bug_entry *entry, struct pt_regs *regs);
	void (*arch_static_call_transform)(void *site, void *trampoline, void *function, bool tail);
	void (*arch_jump_label_transform)(struct jump_entry *entry, enum jump_label_type type);
	bool (*arch_jump_label_transform_queue)(struct jump_entry *entry, enum jump_label_type type);
	struct mutex *static_call_mutex;
	void *(*text_poke)(void *address, const void *bytes, size_t length);

	/* Has the CPU hold what the task has in its vector registers. Later kernels export it to KVM alone. */
	void (*switch_fpu_return)(void);

	/* The interrupt descriptor table. */
	void *idt_table;

	/* What is in each debug register of a CPU; NULL when this kernel does not say. */
	struct perf_event *__percpu *bp_per_reg;

	/* How the kernel tells of a trap. */
	int (*notify_die)(enum die_val value, const char *text, struct pt_regs *regs, long error, int number, int signal);
	struct atomic_notifier_head *die_chain;
};

extern struct dprobes_symbols dprobes_symbols;

int dprobes_symbols_find(void);

/* slots.S */
extern u8 dprobes_slots[DPROBES_SLOTS_SIZE];

extern struct dprobes_scratch {
	u8 static_call[16];
	u8 jump_label[16];
} dprobes_scratch;

static inline bool dprobes_in_slots(unsigned long addr)
{
	return addr - (unsigned long)dprobes_slots < DPROBES_SLOTS_SIZE;
}

/* probeable.c */
void dprobes_host_probeable(struct dprobes_candidate *candidates, uintptr_t count);
bool dprobes_host_function_at(u64 address, struct dprobes_function *function);

/* modules.c */
int dprobes_modules_init(void);
void dprobes_modules_exit(void);
/* Is it loaded, as far as probes are concerned? The caller has the control lock. */
bool dprobes_module_is_there(const struct module *mod);
/* The text of a module that stays after its init has run, and that which does not. */
void dprobes_module_text(const struct module *mod, unsigned long *start, unsigned long *end);
void dprobes_module_init_text(const struct module *mod, unsigned long *start, unsigned long *end);
int dprobes_host_module_base(const char *name, uintptr_t length, u64 *base);
int dprobes_host_symbol(const char *module, uintptr_t module_length, const char *symbol, uintptr_t symbol_length,
			u64 *start, u64 *end);

/* text.c */
int dprobes_slots_init(void);
uintptr_t dprobes_host_write_text(const struct dprobes_patch *patches, uintptr_t count);
void dprobes_host_sync_cores(void);
void dprobes_host_grace_period(void);

/* memory.c */
int dprobes_host_read(u64 address, u8 *buffer, uintptr_t length, u64 *bad);		/* hit */
int dprobes_host_write(u64 address, const u8 *buffer, uintptr_t length, u64 *bad);	/* hit */
bool dprobes_host_writable(u64 address);						/* hit */

/* allocation.c */
/* From now on memory that is taken is programs'. */
void dprobes_memory_is_programs(void);
/* Has the bound on it refused any since this was called last? Then what it is and what is in use, in bytes. The caller has the control lock. */
bool dprobes_memory_was_refused(u64 facts[2]);
/* Memory that others allocate for programs: counts it, if the bound allows so much more, and no longer. */
bool dprobes_memory_take(size_t bytes);
void dprobes_memory_give(size_t bytes);
u8 *dprobes_host_alloc(uintptr_t size, uintptr_t align);
void dprobes_host_free(u8 *memory, uintptr_t size, uintptr_t align);

/* registers.c */
int dprobes_host_user_registers(struct dprobes_trap_frame *frame);			/* hit */
int dprobes_host_set_user_registers(const struct dprobes_trap_frame *frame);		/* hit */
int dprobes_host_msr(u32 number, u64 *value);						/* hit */

/* stack.c */
s64 dprobes_host_kernel_stack(const struct dprobes_trap_frame *frame, u64 *addresses, uintptr_t capacity); /* hit */

/* returns.c */
bool dprobes_host_follow_return(u64 number, const struct dprobes_trap_frame *frame, const u64 *words);	/* hit */
void dprobes_host_follow_again(u64 number, const struct dprobes_trap_frame *frame);			/* hit */
int dprobes_host_attach_return(u64 start, u64 end);
void dprobes_host_detach_return(void);
void dprobes_returns_exit(void);

/* user.c: the control path, with kprobe_mutex held */
int dprobes_host_user_file(u64 word, struct dprobes_file_id *id);
s64 dprobes_host_read_user_file(u64 word, u64 offset, u8 *buffer, uintptr_t length);
int dprobes_host_attach_user(u64 word, u64 offset, u64 number, bool returns, u64 *attached);
void dprobes_host_detach_user(const u64 *attached, uintptr_t count);
void dprobes_user_init(void);
void dprobes_user_exit(void);

/* host.c */
extern const struct dprobes_host dprobes_linux_host;

/* trap.c */
int dprobes_traps_init(void);
void dprobes_traps_exit(void);

/* sentry.c */
enum dprobes_sentry {
	DPROBES_SENTRY_UNDEFINED,
	DPROBES_SENTRY_WARNING,
	DPROBES_SENTRY_STATIC_CALL,
	DPROBES_SENTRY_JUMP_LABEL,
};

void dprobes_host_sentry(u64 token, struct dprobes_trap_frame *frame);			/* hit */
void dprobes_sentries_set(void);
void dprobes_sentries_clear(void);
bool dprobes_sentry_is_set(enum dprobes_sentry which);

/* undefined.c */
void dprobes_on_report_bug(struct pt_regs *regs);					/* hit */
void dprobes_on_report_bug_entry(struct pt_regs *regs);					/* hit */
/* Is it an instruction that is found when it is reported, and `*sentry`: is that watched over? */
bool dprobes_is_reported(unsigned long address, bool *sentry);

/* rewrite.c */
void dprobes_on_static_call_transform(struct pt_regs *regs);				/* hit */
void dprobes_on_jump_label_transform(struct pt_regs *regs);				/* hit */
void dprobes_host_lock_rewrites(void);
void dprobes_host_unlock_rewrites(void);

/* gate.c */
extern u64 dprobes_kernel_entry;
int dprobes_gate_init(void);
bool dprobes_gate_exit(void);
bool dprobes_gate_installed(void);							/* hit */

/* entry.S */
void dprobes_breakpoint_entry(void);

/* trap_path.c */
int dprobes_trap_path_find(const struct notifier_block *ours);
bool dprobes_trap_path_has(unsigned long function);

/* watch.c */
int dprobes_host_set_watchpoint(u32 number, u64 address, u32 kind, u32 length, u32 process, struct dprobes_watch_users *users);
void dprobes_host_clear_watchpoint(u32 number);
int dprobes_watch_init(void);
void dprobes_watch_exit(void);

/* exits.c */
int dprobes_host_exit_to(const struct dprobes_exit_to *exit, const struct dprobes_trap_frame *frame, const u8 *elements,
			 uintptr_t length);						/* hit */
u32 dprobes_host_facility(u32 facility);
int dprobes_pass_to_tracer(const struct dprobes_exit_to *exit, const u8 *elements, size_t length);	/* hit */

/* coredump.c */
int dprobes_core_begin(const struct dprobes_exit_to *exit, const struct dprobes_trap_frame *frame);	/* hit */
bool dprobes_core_is_there(void);
void dprobes_core_init(void);
void dprobes_core_exit(void);

/* control.c */
int dprobes_control_set_sentry(u64 address, u64 token);
int dprobes_control_clear_sentries(void);
void dprobes_control_exit(void);
void dprobes_control_lock(void);
void dprobes_control_unlock(void);
void dprobes_host_request_reap(void);							/* hit */
int dprobes_control_insert(const u8 *object, size_t length, const struct dprobes_insert_options *options,
			   struct dprobes_probe_status *last, size_t capacity, uintptr_t *count, struct dprobes_reply *reply);
int dprobes_control_remove(const char *module, u16 major, struct dprobes_probe_status *last, size_t capacity,
			   uintptr_t *count, struct dprobes_reply *reply);
int dprobes_control_remove_all(struct dprobes_reply *reply);
int dprobes_control_check(struct dprobes_point_check *checks, size_t count);
int dprobes_control_disarm(const char *module, u16 major, u16 which, u16 number, struct dprobes_reply *reply);
int dprobes_control_vars(struct dprobes_vars_request *request, struct dprobes_var_status *buffer, size_t capacity);
s64 dprobes_control_query(struct dprobes_probe_status *buffer, size_t capacity);
s64 dprobes_control_maps(struct dprobes_map_status *buffer, size_t capacity);
int dprobes_control_read_map(struct dprobes_read_map_request *request, u8 *buffer, size_t length);

/* format.c: text, a character at a time */
struct dprobes_sink {
	void (*put)(struct dprobes_sink *sink, char c);
};
void dprobes_format(struct dprobes_sink *sink, const struct dprobes_header *head, const u8 *elements, size_t length); /* hit */

/* klog.c */
bool dprobes_klog(const struct dprobes_header *head, const u8 *elements, size_t length);	/* hit */
bool dprobes_klog_open(void);
void dprobes_klog_exit(void);

/* serial.c */
bool dprobes_serial(const struct dprobes_header *head, const u8 *elements, size_t length);	/* hit */
bool dprobes_serial_is_there(void);
int dprobes_serial_init(void);

/* targets.c */
u32 dprobes_host_deliver(u32 targets, const struct dprobes_header *head, const u8 *elements, uintptr_t length); /* hit */
u32 dprobes_host_target(u32 target);

/* rings.c */
long dprobes_rings(struct file *file, struct dprobes_rings_request __user *argument);
void dprobes_rings_release(struct file *file);
int dprobes_rings_mmap(struct file *file, struct vm_area_struct *vma);

/* persist.c */
int dprobes_persist_init(void);
void dprobes_persist_exit(void);

/* emergency.c */
void dprobes_emergency_init(void);
void dprobes_emergency_exit(void);

/* vars.c */
long dprobes_vars_get(struct dprobes_vars_request __user *argument);

/* maps.c */
long dprobes_maps_list(struct dprobes_maps_request __user *argument);
long dprobes_maps_read(struct dprobes_read_map_request __user *argument);

/* device.c */
int dprobes_may_open(void);
int dprobes_stream_settle(void);
int dprobes_device_init(void);
void dprobes_device_exit(void);

#endif
