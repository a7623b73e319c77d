// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Exits for tests, on the hooks of sample_queue. Those that write their digit into a packet's mark show in which order they were called.
 * /sys/module/gkhi_exits/parameters/ has
 *
 *	stress		writing N registers, arms, disarms and deregisters an exit N times; its memory is poisoned in between
 *	inside		what gkhi_deregister() said that was called from inside the exit `inside`
 *	sleeping	how many calls of the exit `sleepy` have begun and not ended
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "sample_queue.h"

#define DIGIT(name, digit, ...)								\
	static int name##_function(struct gkhi_exit *self, struct sample_packet *packet) \
	{										\
		packet->mark = packet->mark * 10 + (digit);				\
		return GKHI_CONTINUE;							\
	}										\
	GKHI_DEFINE_EXIT(name, sample_enqueue, name##_function, ##__VA_ARGS__)

DIGIT(last, 9, .options = GKHI_PRIORITY_LAST);
DIGIT(second, 2);
DIGIT(third, 3);
DIGIT(lifo, 1, .options = GKHI_QUEUE_LIFO);
DIGIT(first, 7, .options = GKHI_PRIORITY_FIRST);
DIGIT(needs_third, 4, .requires = GKHI_NAMES("third"));
DIGIT(hates_third, 5, .conflicts = GKHI_NAMES("third"));

static int stop_function(struct gkhi_exit *self, struct sample_packet *packet)
{
	return GKHI_TERMINATE;
}
GKHI_DEFINE_EXIT(stop, sample_enqueue, stop_function, .options = GKHI_QUEUE_LIFO);

static struct gkhi_answer keep_function(struct gkhi_exit *self, u32 count)
{
	return gkhi_return_sample_flush();
}
GKHI_DEFINE_EXIT(keep, sample_flush, keep_function);

static atomic64_t looks;

static int look_function(struct gkhi_exit *self, u64 length)
{
	atomic64_inc(&looks);
	return GKHI_CONTINUE;
}
GKHI_DEFINE_EXIT(look, sample_look, look_function);

static atomic64_t sleeping;

static int sleepy_function(struct gkhi_exit *self, struct sample_packet *packet)
{
	atomic64_inc(&sleeping);
	msleep(300);
	atomic64_dec(&sleeping);
	return GKHI_CONTINUE;
}
GKHI_DEFINE_EXIT(sleepy, sample_enqueue, sleepy_function, .watch = 1000);

static int inside_result = 1;

static int inside_function(struct gkhi_exit *self, struct sample_packet *packet)
{
	inside_result = gkhi_deregister(self);
	return GKHI_CONTINUE;
}
GKHI_DEFINE_EXIT(inside, sample_enqueue, inside_function);

static struct gkhi_exit *const exits[] = {
	&last, &second, &third, &lifo, &first, &needs_third, &hates_third, &stop, &keep, &look, &sleepy, &inside,
};

/* ---- stress ---- */

#define ALIVE 0x616c697665212121ull

struct mortal {
	struct gkhi_exit exit;
	u64 state;
};

static atomic64_t calls;

static int mortal_function(struct gkhi_exit *self, struct sample_packet *packet)
{
	const struct mortal *mortal = container_of(self, struct mortal, exit);

	WARN_ONCE(READ_ONCE(mortal->state) != ALIVE, "an exit was called that is deregistered");
	atomic64_inc(&calls);
	return GKHI_CONTINUE;
}
GKHI_DEFINE_EXIT(mortal, sample_enqueue, mortal_function);

static struct gkhi_answer mortal_admit_function(struct gkhi_exit *self, const struct sample_packet *packet)
{
	const struct mortal *mortal = container_of(self, struct mortal, exit);

	WARN_ONCE(READ_ONCE(mortal->state) != ALIVE, "an exit was called that is deregistered");
	return gkhi_continue();
}
GKHI_DEFINE_EXIT(mortal_admit, sample_admit, mortal_admit_function);

static struct mortal *new_mortal(const struct gkhi_exit *template)
{
	struct mortal *new = kzalloc(sizeof(*new), GFP_KERNEL);

	if (new) {
		new->exit = *template;
		new->state = ALIVE;
	}
	return new;
}

static void bury(struct mortal *mortal)
{
	memset(mortal, 0x6b, sizeof(*mortal));
	kfree(mortal);
}

/* One life: both exits are armed as a set, called for a while or not at all, and gone. */
static int live(void)
{
	struct mortal *one = new_mortal(&mortal), *two = new_mortal(&mortal_admit);
	struct gkhi_failure failure;
	int err;

	if (!one || !two) {
		kfree(one);
		kfree(two);
		return -ENOMEM;
	}
	err = gkhi_register(&one->exit);
	if (!err) {
		err = gkhi_register(&two->exit);
		if (!err) {
			struct gkhi_exit *const set[] = { &one->exit, &two->exit };

			err = gkhi_arm_set(set, ARRAY_SIZE(set), &failure);
			if (err)
				pr_err("%s\n", failure.message);
			WARN_ON_ONCE(gkhi_deregister(&two->exit));
		}
		WARN_ON_ONCE(gkhi_deregister(&one->exit));
	}
	bury(one);
	bury(two);
	return err ? -EIO : 0;
}

static int set_stress(const char *text, const struct kernel_param *param)
{
	unsigned int times;
	int err;

	err = kstrtouint(text, 0, &times);
	while (!err && times--)
		err = live();
	return err;
}

static int show_stress(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld\n", (s64)atomic64_read(&calls));
}

static const struct kernel_param_ops stress_operations = { .set = set_stress, .get = show_stress };
module_param_cb(stress, &stress_operations, NULL, 0600);
module_param_named(inside, inside_result, int, 0400);

static int show_sleeping(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld\n", (s64)atomic64_read(&sleeping));
}

static const struct kernel_param_ops sleeping_operations = { .get = show_sleeping };
module_param_cb(sleeping, &sleeping_operations, NULL, 0400);

static int show_looks(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld\n", (s64)atomic64_read(&looks));
}

static const struct kernel_param_ops looks_operations = { .get = show_looks };
module_param_cb(looks, &looks_operations, NULL, 0400);

static void deregister(size_t count)
{
	while (count--)
		WARN_ON(gkhi_deregister(exits[count]));
}

static int __init exits_init(void)
{
	size_t i;
	int err;

	for (i = 0; i < ARRAY_SIZE(exits); i++) {
		err = gkhi_register(exits[i]);
		if (err) {
			pr_err("%s: %d\n", exits[i]->name, err);
			deregister(i);
			return -EBUSY;
		}
	}
	return 0;
}
module_init(exits_init);

static void __exit exits_exit(void)
{
	deregister(ARRAY_SIZE(exits));
}
module_exit(exits_exit);

MODULE_DESCRIPTION("Exits for the tests of GKHI");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
