// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Calls that are followed to where they return, by the kernel's rethook: the list of replaced return addresses that each task has for kretprobes.
 *
 * What the engine asks for at the beginning of a call is noted in a node of a pool, whose nodes are there before. The kernel's trampoline calls back when the
 * call has returned; the unwinder knows it, and a task that ends gives its nodes back. Nothing of this module is needed by a call that is under
 * way: when a pool is given up its nodes stay until their calls have returned, and call nobody then, also when this module is gone.
 *
 * There are as many nodes as calls may be under way, of all functions together. What a hit takes comes from the first pool that has one; when that is the last
 * there is, a worker makes another one, as large as all before. So half of them are in reserve, up to the bound. A call for which there is none is counted.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <asm/unwind.h>
#include <linux/irq_work.h>
#include <linux/irqflags.h>
#include <linux/kprobes.h>
#include <linux/llist.h>
#include <linux/minmax.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "shim.h"

#ifdef CONFIG_RETHOOK
#include <linux/rethook.h>

/* Looked at when the first function is followed, and the bound whenever more are noted. */
static unsigned int calls = 2048;
module_param(calls, uint, 0600);
MODULE_PARM_DESC(calls, "calls that may be under way at first whose returns are probed");

static unsigned int calls_max = 262144;
module_param(calls_max, uint, 0600);
MODULE_PARM_DESC(calls_max, "calls that may be under way at most whose returns are probed");

/* One that is followed. The kernel frees it. */
struct call {
	struct rethook_node node;	/* first, as what is freed */
	u64 number;
	u64 words[DPROBES_CALL_WORDS];
	/* Its first instruction has faulted, and comes again. */
	bool again;
};

/* The first two have half of `calls` each; each one behind them is as large as all before. */
#define POOLS_MAX 34

struct pool {
	struct rethook *rethook;
	unsigned int size;
};

/* Hits look at the first `pool_count`; they change with pools_mutex held. */
static struct pool pools[POOLS_MAX];
static unsigned int pool_count;
static unsigned int users;
static DEFINE_MUTEX(pools_mutex);
static bool growing;

static const struct dprobes_returns_symbols *const symbols = &dprobes_symbols.returns;

/*
 * A call has returned: in the kernel's trampoline, with preemption disabled. `regs` are the caller's as it goes on, and where it goes on the kernel
 * decides. The place of `ss` has something else in some versions.
 */
static void returned(struct rethook_node *node, struct pt_regs *regs)
{
	const struct call *call = container_of(node, struct call, node);
	struct pt_regs seen = *regs;
	unsigned long flags;

	seen.ss = __KERNEL_DS;
	raw_local_irq_save(flags);
	dprobes_on_return(call->number, (struct dprobes_trap_frame *)&seen, call->words);
	raw_local_irq_restore(flags);
	seen.ip = regs->ip;
	seen.sp = regs->sp;
	seen.cs = regs->cs;
	seen.ss = regs->ss;
	seen.flags = regs->flags;
	*regs = seen;
}
NOKPROBE_SYMBOL(returned);

/* The kernel's handlers have come to be told the return address too, which is in the registers as well. */
typedef void handler_of_three(struct rethook_node *, void *, struct pt_regs *);

static __maybe_unused void returned_three(struct rethook_node *node, void *data, struct pt_regs *regs)
{
	returned(node, regs);
}
NOKPROBE_SYMBOL(returned_three);

static __maybe_unused void returned_four(struct rethook_node *node, void *data, unsigned long address,
					 struct pt_regs *regs)
{
	returned(node, regs);
}
NOKPROBE_SYMBOL(returned_four);

#define RETURNED											\
	__builtin_choose_expr(__builtin_types_compatible_p(rethook_handler_t, handler_of_three *),	\
			      returned_three, returned_four)

#if COMPAT_RETHOOK_MAKES_NODES

static struct rethook *new_rethook(unsigned int size)
{
	struct rethook *(*alloc)(void *, rethook_handler_t, int, int) = symbols->rethook_alloc;
	struct rethook *rethook = alloc(NULL, RETURNED, sizeof(struct call), size);

	return IS_ERR(rethook) ? NULL : rethook;
}

#else

static struct rethook *new_rethook(unsigned int size)
{
	void (*add_node)(struct rethook *, struct rethook_node *) = symbols->rethook_add_node;
	struct rethook *(*alloc)(void *, rethook_handler_t) = symbols->rethook_alloc;
	struct rethook *rethook = alloc(NULL, RETURNED);
	struct call *call;

	while (rethook && size--) {
		call = kzalloc(sizeof(*call), GFP_KERNEL);
		if (!call) {
			symbols->rethook_free(rethook);
			return NULL;
		}
		add_node(rethook, &call->node);
	}
	return rethook;
}

#endif

/* One more pool. pools_mutex is held. */
static bool add_pool(unsigned int size)
{
	const size_t bytes = (size_t)size * sizeof(struct call);
	struct pool *pool = &pools[pool_count];

	if (!size || pool_count == POOLS_MAX || !dprobes_memory_take(bytes))
		return false;
	pool->rethook = new_rethook(size);
	if (!pool->rethook) {
		dprobes_memory_give(bytes);
		return false;
	}
	pool->size = size;
	/* Who sees that it is there sees what it is. */
	smp_store_release(&pool_count, pool_count + 1);
	return true;
}

static unsigned int all_calls(void)
{
	unsigned int i, sum = 0;

	for (i = 0; i < pool_count; i++)
		sum += pools[i].size;
	return sum;
}

static unsigned int bound(void)
{
	return max(READ_ONCE(calls_max), 1U);
}

static unsigned int room(void)
{
	return bound() - min(bound(), all_calls());
}

static void grow(struct work_struct *work)
{
	mutex_lock(&pools_mutex);
	if (users)
		add_pool(min(all_calls(), room()));
	mutex_unlock(&pools_mutex);
	WRITE_ONCE(growing, false);
}
static DECLARE_WORK(grow_work, grow);

static void queue_grow(struct irq_work *work)
{
	schedule_work(&grow_work);
}
static DEFINE_IRQ_WORK(grow_irq, queue_grow);

/* A pool that is given up takes no calls, and its calls are nobody's any more; it goes when the last has returned. */
static void drop_pools(void)
{
	struct pool *pool;

	while (pool_count) {
		pool = &pools[pool_count - 1];
		WRITE_ONCE(pool_count, pool_count - 1);
		symbols->rethook_free(pool->rethook);
		dprobes_memory_give((size_t)pool->size * sizeof(struct call));
	}
}

static bool is_here(void)
{
	return symbols->rethook_alloc && symbols->rethook_free && symbols->rethook_try_get && symbols->rethook_hook &&
	       symbols->kretprobe_blacklist &&
	       (COMPAT_RETHOOK_MAKES_NODES || symbols->rethook_add_node);
}

/*
 * Is the return address on top of the stack at this address? The unwinder says so: it is shown registers that would be those there, and a stack that has
 * nothing but a return address.
 */
static noinline bool begins_a_call(unsigned long address)
{
	unsigned long stack[4] = { (unsigned long)begins_a_call };
	struct pt_regs regs = {
		.ip = address,
		.sp = (unsigned long)stack,
		.cs = __KERNEL_CS,
		.ss = __KERNEL_DS,
	};
	struct unwind_state state;

	unwind_start(&state, current, &regs, NULL);
	return !unwind_done(&state) && unwind_get_return_address(&state) == stack[0];
}

int dprobes_host_attach_return(u64 start, u64 end)
{
	const struct kretprobe_blackpoint *refused;
	unsigned int half = max(READ_ONCE(calls) / 2, 1U);
	int err = 0;

	if (!is_here())
		return DPROBES_RETURN_ERROR_UNSUPPORTED;
	for (refused = symbols->kretprobe_blacklist; refused->name; refused++) {
		if ((unsigned long)refused->addr >= start && (unsigned long)refused->addr < end)
			return DPROBES_RETURN_ERROR_SWITCHES;
	}
	if (!begins_a_call(start))
		return DPROBES_RETURN_ERROR_NOT_ENTRY;
	mutex_lock(&pools_mutex);
	if (!users && !add_pool(min(half, room())))
		err = DPROBES_RETURN_ERROR_NO_MEMORY;
	else if (!users)
		/* The reserve; without it there are fewer. */
		add_pool(min(half, room()));
	if (!err)
		users++;
	mutex_unlock(&pools_mutex);
	return err;
}

void dprobes_host_detach_return(void)
{
	mutex_lock(&pools_mutex);
	if (!--users)
		drop_pools();
	mutex_unlock(&pools_mutex);
}

static struct call *call_of(struct llist_node *item)
{
	return container_of(container_of(item, struct rethook_node, llist), struct call, node);
}

/* The call that is followed by this number on the frame at `sp`, if it is noted there: the newest one. */
static struct call *noted(u64 number, unsigned long sp)
{
	struct llist_node *item;

	for (item = current->rethooks.first; item; item = item->next) {
		struct call *call = call_of(item);

		if (call->node.frame != sp)
			break;
		/* Those of kretprobes are on the same list. */
		if (rcu_access_pointer(call->node.rethook->handler) == (void *)RETURNED && call->number == number)
			return call;
	}
	return NULL;
}
NOKPROBE_SYMBOL(noted);

void dprobes_host_follow_again(u64 number, const struct dprobes_trap_frame *frame)
{
	struct call *call = noted(number, frame->rsp);

	if (call)
		call->again = true;
}
NOKPROBE_SYMBOL(dprobes_host_follow_again);

/*
 * Was an NMI interrupted, or something that comes like one? The kernel's entry has counted this breakpoint as one too; the module's gate does not.
 *
 * No call is followed from there: a note that is given back (include/linux/objpool.h, since 6.7) is first given a place and then put there, and who gives
 * back another one in between shows the place to everybody while what was there before is still in it.
 */
static bool in_another_nmi(void)
{
	const unsigned int own = dprobes_gate_installed() ? 0 : 1;

	return nmi_count() >> NMI_SHIFT > own;
}
NOKPROBE_SYMBOL(in_another_nmi);

bool dprobes_host_follow_return(u64 number, const struct dprobes_trap_frame *frame, const u64 *words)
{
	struct call *call = noted(number, frame->rsp);
	unsigned int i, count = smp_load_acquire(&pool_count);
	struct rethook_node *node = NULL;

	if (in_another_nmi())
		return false;
	if (call && call->again) {
		call->again = false;
		memcpy(call->words, words, sizeof(call->words));
		return true;
	}
	/* A hit through a gate of our own is not known to be one that must not be preempted. */
	preempt_disable_notrace();
	for (i = 0; i < count && !node; i++)
		node = symbols->rethook_try_get(pools[i].rethook);
	if (node) {
		call = container_of(node, struct call, node);
		call->number = number;
		call->again = false;
		memcpy(call->words, words, sizeof(call->words));
		symbols->rethook_hook(node, (struct pt_regs *)frame, false);
	}
	preempt_enable_notrace();
	if (i == count && !READ_ONCE(growing) && room()) {
		WRITE_ONCE(growing, true);
		irq_work_queue(&grow_irq);
	}
	return node;
}
NOKPROBE_SYMBOL(dprobes_host_follow_return);

/* Nothing is attached any more. When this returns nobody is in what calls have returned to, or comes there. */
void dprobes_returns_exit(void)
{
	irq_work_sync(&grow_irq);
	cancel_work_sync(&grow_work);
	/* The kernel calls it with preemption disabled, and looks before whether it may. */
	synchronize_rcu();
}

#else

int dprobes_host_attach_return(u64 start, u64 end)
{
	return DPROBES_RETURN_ERROR_UNSUPPORTED;
}

void dprobes_host_detach_return(void)
{
}

bool dprobes_host_follow_return(u64 number, const struct dprobes_trap_frame *frame, const u64 *words)
{
	return false;
}

void dprobes_host_follow_again(u64 number, const struct dprobes_trap_frame *frame)
{
}

void dprobes_returns_exit(void)
{
}

#endif
