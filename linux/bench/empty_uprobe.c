// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A uprobe whose handler does nothing: insmod empty_uprobe.ko file=/bin/meter offset=0x1234. With returns=1 a uretprobe.
 */
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/uprobes.h>

#include "compat.h"

static char *file;
module_param(file, charp, 0444);
MODULE_PARM_DESC(file, "program or library to probe");

static unsigned long offset;
module_param(offset, ulong, 0444);
MODULE_PARM_DESC(offset, "offset of the instruction in it, in bytes");

static bool returns;
module_param(returns, bool, 0444);
MODULE_PARM_DESC(returns, "probe where the call returns that begins there");

static int nothing(struct uprobe_consumer *consumer, struct pt_regs *regs COMPAT_HANDLER_DATA)
{
	return 0;
}

static int nothing_returned(struct uprobe_consumer *consumer, unsigned long function, struct pt_regs *regs COMPAT_HANDLER_DATA)
{
	return 0;
}

static struct uprobe_consumer empty;
static struct uprobe *registered;
static struct file *opened;

static int __init empty_uprobe_init(void)
{
	int err;

	opened = filp_open(file, O_RDONLY, 0);
	if (IS_ERR(opened))
		return PTR_ERR(opened);
	if (returns)
		empty.ret_handler = nothing_returned;
	else
		empty.handler = nothing;
	err = compat_uprobe_register(d_real_inode(file_dentry(opened)), offset, &empty, &registered);
	if (err)
		fput(opened);
	return err;
}

static void __exit empty_uprobe_exit(void)
{
	compat_uprobe_unregister(d_real_inode(file_dentry(opened)), offset, &empty, registered);
	compat_uprobe_unregister_sync();
	fput(opened);
}

module_init(empty_uprobe_init);
module_exit(empty_uprobe_exit);
MODULE_DESCRIPTION("A uprobe that does nothing");
MODULE_LICENSE("Dual MIT/GPL");
