// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Records on a serial port, a 16550 at an I/O port: polled, at once, in the hit itself, so that they are out before the machine dies of what comes next.
 *
 * This takes the time that the line takes, with interrupts off: at 115,200 bits a second 9 ms for 100 characters. Nothing is waited for longer than a bound: a
 * port that does not take a character in twenty times the time of one is dead, is given up, and what would go there is refused, which the engine counts.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/moduleparam.h>
#include <linux/panic.h>
#include <linux/printk.h>
#include <linux/serial_reg.h>

#include "shim.h"

static ushort serial_port;
module_param(serial_port, ushort, 0400);
MODULE_PARM_DESC(serial_port, "I/O port of the 16550 that records can go to, such as 0x3f8 or 0x2f8 (default: none)");

static uint serial_speed;
module_param(serial_speed, uint, 0400);
MODULE_PARM_DESC(serial_speed, "its bits a second, 8N1: 115200 or what that can be divided by (default: as it is set already)");

/* Has it not taken a character in time? */
static bool dead;

static int show_dead(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%s\n", !serial_port ? "none" : READ_ONCE(dead) ? "dead" : "works");
}
static const struct kernel_param_ops state_operations = { .get = show_dead };
module_param_cb(serial_state, &state_operations, NULL, 0400);
MODULE_PARM_DESC(serial_state, "none, works, or dead: it has not taken a character in time, and is given up");

/* In microseconds; when the speed is not known, as for 9600 bits a second. */
static unsigned int patience;

/* Which CPU writes. A hit cannot be interrupted by one that writes, so that this is always another one, which is at it. */
static atomic_t busy;

static u8 in(unsigned int reg)
{
	return inb(serial_port + reg);
}
NOKPROBE_SYMBOL(in);

static void out(unsigned int reg, u8 value)
{
	outb(value, serial_port + reg);
}
NOKPROBE_SYMBOL(out);

static void put_byte(struct dprobes_sink *sink, char c)
{
	unsigned int left = patience;

	if (dead)
		return;
	while (!(in(UART_LSR) & UART_LSR_THRE)) {
		if (!left--) {
			WRITE_ONCE(dead, true);
			return;
		}
		udelay(1);
	}
	out(UART_TX, c);
}
NOKPROBE_SYMBOL(put_byte);

/* Waits for another CPU's record, but not for ever: that CPU may have been stopped in it, if the machine is dying. */
static bool begin(void)
{
	unsigned int left = 100000;

	while (atomic_cmpxchg_acquire(&busy, 0, 1)) {
		if (!left--)
			return oops_in_progress;
		udelay(1);
	}
	return true;
}
NOKPROBE_SYMBOL(begin);

bool dprobes_serial(const struct dprobes_header *head, const u8 *elements, size_t length)
{
	struct dprobes_sink sink = { .put = put_byte };
	const char *c;
	u8 interrupts;

	if (!serial_port || dead || !begin())
		return false;
	/* A driver of the port is not to be told of what is sent here. */
	interrupts = in(UART_IER);
	out(UART_IER, 0);
	for (c = "dprobes: "; *c; c++)
		put_byte(&sink, *c);
	dprobes_format(&sink, head, elements, length);
	put_byte(&sink, '\r');
	put_byte(&sink, '\n');
	out(UART_IER, interrupts);
	atomic_set_release(&busy, 0);
	return !dead;
}
NOKPROBE_SYMBOL(dprobes_serial);

bool dprobes_serial_is_there(void)
{
	return serial_port && !READ_ONCE(dead);
}

int dprobes_serial_init(void)
{
	unsigned int divisor;

	if (!serial_port)
		return 0;
	if (serial_speed && (serial_speed > 115200 || 115200 % serial_speed)) {
		pr_err("serial_speed=%u is not 115200 divided by a whole number\n", serial_speed);
		return -EINVAL;
	}
	/* Where there is no device all bits are set. */
	if (in(UART_LSR) == 0xff) {
		pr_err("no serial port at %#x\n", serial_port);
		return -ENODEV;
	}
	patience = 20 * 10 * (USEC_PER_SEC / (serial_speed ?: 9600));
	if (serial_speed) {
		divisor = 115200 / serial_speed;
		out(UART_LCR, UART_LCR_WLEN8 | UART_LCR_DLAB);
		out(UART_DLL, divisor & 0xff);
		out(UART_DLM, divisor >> 8);
		out(UART_LCR, UART_LCR_WLEN8);
	}
	return 0;
}
