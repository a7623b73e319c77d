// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Records in the kernel's log.
 *
 * A hit cannot print: whom it has interrupted may be printing. It leaves the record in a queue of its CPU, and a worker prints. What is more than the rate
 * permits, or finds the queue full, is refused, which the engine counts for the probe.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/irq_work.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/smp.h>
#include <linux/workqueue.h>

#include "shim.h"

/* Each CPU may have so many printed in each second. */
static unsigned int klog_rate = 100;
module_param(klog_rate, uint, 0600);
MODULE_PARM_DESC(klog_rate, "records in the kernel log, for each CPU and second (default 100); the others are counted as undelivered");

/* The elements of a hit and of its stack traces have 1024 bytes at most; traces begin with the name of a module and some words. */
#define ELEMENTS_MAX 1280
#define PLACES 32

struct place {
	struct dprobes_header head;
	u32 length;
	u8 elements[ELEMENTS_MAX];
};

/* One writer, the hits of its CPU, which are one at a time; one reader, the worker. */
struct queue {
	u32 written;
	u32 read;
	/* Of the writer: what is permitted. */
	u64 second;
	u32 in_second;
	struct place places[PLACES];
};

/* One for each CPU, from when the first program asks for it. */
static struct queue *queues;

/* As much as printk takes in a line, its prefix included. */
static struct line {
	struct dprobes_sink sink;
	size_t length;
	size_t cut;
	char text[880];
} line;

static void line_put(struct dprobes_sink *sink, char c)
{
	struct line *to = container_of(sink, struct line, sink);

	if (to->length < sizeof(to->text))
		to->text[to->length++] = c;
	else
		to->cut++;
}

static void print_records(struct work_struct *work)
{
	struct queue *queue;
	struct place *place;
	u32 cpu, read;

	for (cpu = 0; cpu < nr_cpu_ids; cpu++) {
		queue = &queues[cpu];
		for (read = queue->read; read != smp_load_acquire(&queue->written); read++) {
			place = &queue->places[read % PLACES];
			line = (struct line){ .sink.put = line_put };
			dprobes_format(&line.sink, &place->head, place->elements, place->length);
			if (line.cut)
				pr_info("%.*s ... %zu more characters\n", (int)line.length, line.text, line.cut);
			else
				pr_info("%.*s\n", (int)line.length, line.text);
			smp_store_release(&queue->read, read + 1);
		}
	}
}
static DECLARE_WORK(print_work, print_records);

static void queue_print(struct irq_work *work)
{
	queue_work(system_long_wq, &print_work);
}
static DEFINE_IRQ_WORK(print_irq_work, queue_print);

bool dprobes_klog(const struct dprobes_header *head, const u8 *elements, size_t length)
{
	struct queue *all = smp_load_acquire(&queues), *queue;
	struct place *place;

	if (!all || length > ELEMENTS_MAX)
		return false;
	queue = &all[raw_smp_processor_id()];
	if (head->time / NSEC_PER_SEC != queue->second) {
		queue->second = head->time / NSEC_PER_SEC;
		queue->in_second = 0;
	}
	if (queue->in_second >= READ_ONCE(klog_rate) || queue->written - smp_load_acquire(&queue->read) == PLACES)
		return false;
	queue->in_second++;
	place = &queue->places[queue->written % PLACES];
	place->head = *head;
	place->length = length;
	memcpy(place->elements, elements, length);
	smp_store_release(&queue->written, queue->written + 1);
	irq_work_queue(&print_irq_work);
	return true;
}
NOKPROBE_SYMBOL(dprobes_klog);

/* The caller has the control lock. */
bool dprobes_klog_open(void)
{
	struct queue *all;

	if (queues)
		return true;
	all = kvcalloc(nr_cpu_ids, sizeof(*all), GFP_KERNEL);
	if (!all)
		return false;
	smp_store_release(&queues, all);
	return true;
}

/* No hit comes any more. */
void dprobes_klog_exit(void)
{
	irq_work_sync(&print_irq_work);
	flush_work(&print_work);
	kvfree(queues);
}
