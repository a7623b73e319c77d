// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A record as a line of text, for targets that people read: `7.1 cpu 0 12.345678 42 cat "name" 0x1`. Like what `dprobes log` prints, in less code: it
 * runs in hits, calls nothing of the kernel's, and gives its characters away one by one.
 */
#include <linux/kernel.h>
#include <linux/kprobes.h>

#include "shim.h"

/* dprobes/src/record/element.rs. */
enum {
	TOKEN_MEMORY = 0, TOKEN_STRING = 1, TOKEN_TRACE = 2, TOKEN_ROUTINE = 3, TOKEN_POSITIONS = 4, TOKEN_LOCALS = 5, TOKEN_GLOBALS = 6,
	TOKEN_WORDS = 7, TOKEN_KERNEL_STACK = 8, TOKEN_USER_STACK = 9, TOKEN_FAULT = 0xff,
};
#define ELEMENT_PREFIX 3

/* Before a list of words. */
static const char *const names[] = {
	[TOKEN_TRACE] = "trace", [TOKEN_ROUTINE] = "routine", [TOKEN_POSITIONS] = "rpn-stack", [TOKEN_LOCALS] = "locals",
	[TOKEN_GLOBALS] = "globals", [TOKEN_KERNEL_STACK] = "kstack", [TOKEN_USER_STACK] = "ustack",
};

static void put_text(struct dprobes_sink *sink, const char *text)
{
	while (*text)
		sink->put(sink, *text++);
}
NOKPROBE_SYMBOL(put_text);

static const char digits[] = "0123456789abcdef";

static void put_number(struct dprobes_sink *sink, u64 number, unsigned int base, unsigned int width)
{
	char reversed[20];
	unsigned int length = 0;

	do {
		reversed[length++] = digits[number % base];
		number /= base;
	} while (number || length < width);
	while (length)
		sink->put(sink, reversed[--length]);
}
NOKPROBE_SYMBOL(put_number);

static u64 word_at(const u8 *bytes)
{
	u64 word = 0;
	int i;

	for (i = 7; i >= 0; i--)
		word = word << 8 | bytes[i];
	return word;
}
NOKPROBE_SYMBOL(word_at);

/* Quotes, backslashes and what is no printable ASCII are escaped: neither a terminal nor a reader of lines is confused. */
static void put_quoted(struct dprobes_sink *sink, const u8 *bytes, size_t length)
{
	size_t i;

	sink->put(sink, '"');
	for (i = 0; i < length; i++) {
		if (bytes[i] == '"' || bytes[i] == '\\') {
			sink->put(sink, '\\');
			sink->put(sink, bytes[i]);
		} else if (bytes[i] >= ' ' && bytes[i] <= '~') {
			sink->put(sink, bytes[i]);
		} else {
			put_text(sink, "\\x");
			put_number(sink, bytes[i], 16, 2);
		}
	}
	sink->put(sink, '"');
}
NOKPROBE_SYMBOL(put_quoted);

static void put_element(struct dprobes_sink *sink, u8 token, const u8 *payload, u16 count)
{
	unsigned int i;

	sink->put(sink, ' ');
	switch (token) {
	case TOKEN_STRING:
		put_quoted(sink, payload, count);
		return;
	case TOKEN_MEMORY:
		sink->put(sink, '[');
		for (i = 0; i < count; i++)
			put_number(sink, payload[i], 16, 2);
		sink->put(sink, ']');
		return;
	case TOKEN_FAULT:
		put_text(sink, "<cannot read 0x");
		put_number(sink, word_at(payload), 16, 1);
		sink->put(sink, '>');
		return;
	}
	if (token < ARRAY_SIZE(names) && names[token]) {
		put_text(sink, names[token]);
		sink->put(sink, '[');
	}
	for (i = 0; i < count; i++) {
		put_text(sink, i ? " 0x" : "0x");
		put_number(sink, word_at(payload + 8 * i), 16, 1);
	}
	if (token != TOKEN_WORDS)
		sink->put(sink, ']');
}
NOKPROBE_SYMBOL(put_element);

void dprobes_format(struct dprobes_sink *sink, const struct dprobes_header *head, const u8 *elements, size_t length)
{
	const u8 *end = elements + length;
	size_t i, payload;
	u16 count;

	put_number(sink, head->major, 10, 1);
	sink->put(sink, '.');
	put_number(sink, head->minor, 10, 1);
	put_text(sink, " cpu ");
	put_number(sink, head->cpu, 10, 1);
	sink->put(sink, ' ');
	put_number(sink, head->time / NSEC_PER_SEC, 10, 1);
	sink->put(sink, '.');
	put_number(sink, head->time % NSEC_PER_SEC / NSEC_PER_USEC, 10, 6);
	sink->put(sink, ' ');
	put_number(sink, head->pid, 10, 1);
	if (head->tid != head->pid) {
		sink->put(sink, '/');
		put_number(sink, head->tid, 10, 1);
	}
	sink->put(sink, ' ');
	for (i = 0; i < sizeof(head->name) && head->name[i]; i++)
		sink->put(sink, head->name[i] > ' ' && head->name[i] <= '~' ? head->name[i] : '?');
	/* It is not known yet whether the instruction completes: if it faults, and is executed again, the record comes again. */
	if (head->state == DPROBES_RECORD_STATE_PROVISIONAL)
		put_text(sink, " (may repeat)");
	while (end - elements >= ELEMENT_PREFIX) {
		count = elements[1] | elements[2] << 8;
		payload = elements[0] == TOKEN_MEMORY || elements[0] == TOKEN_STRING || elements[0] == TOKEN_FAULT ?
			  count : 8 * (size_t)count;
		if (payload > end - elements - ELEMENT_PREFIX)
			break;
		put_element(sink, elements[0], elements + ELEMENT_PREFIX, count);
		elements += ELEMENT_PREFIX + payload;
	}
}
NOKPROBE_SYMBOL(dprobes_format);
