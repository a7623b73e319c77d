// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The registry as files, in /sys/kernel/debug/gkhi:
 *
 *	list			every hook, with its sites and exits
 *	hooks/HOOK/EXIT		1: armed, 0: not; writing it arms or disarms the exit
 *	arm, disarm		writing names, HOOK/EXIT with spaces between, arms or disarms all of these exits or none; reading tells why
 *				the last request was refused
 *
 * Folders and files are made and removed after the registry has changed, from a list of what it has then: while a file is being
 * removed it may still be waiting for the registry.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ctype.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "shim.h"

/* Longest request: some hundred names. */
#define REQUEST_MAX (64 << 10)

static DEFINE_MUTEX(tree_lock);
static struct dentry *root;
static struct dentry *hooks_folder;
static bool ready;

/* Why the last request was refused. */
static DEFINE_MUTEX(refusal_lock);
static struct gkhi_failure refusal;

/* A hook's folder, or an exit's file in it. */
struct node {
	struct list_head list;
	struct list_head exits;		/* of a folder */
	struct dentry *dentry;
	const char *hook;
	char name[GKHI_NAME_MAX + 1];
	bool seen;
};

static LIST_HEAD(folders);

static int as_errno(int error)
{
	switch (error) {
	case 0:
		return 0;
	case GKHI_ERROR_NOT_REGISTERED:
		return -ENOENT;
	case GKHI_ERROR_REQUIRES:
	case GKHI_ERROR_CONFLICT:
	case GKHI_ERROR_EXCLUSIVE:
	case GKHI_ERROR_INSIDE:
	case GKHI_ERROR_BUSY:
		return -EBUSY;
	case GKHI_ERROR_NO_MEMORY:
		return -ENOMEM;
	case GKHI_ERROR_TEXT_CHANGED:
	case GKHI_ERROR_TEXT_UNREADABLE:
	case GKHI_ERROR_TEXT_UNWRITABLE:
	case GKHI_ERROR_TEXT_TOO_FAR:
		return -EIO;
	default:
		return -EINVAL;
	}
}

static int request(const struct gkhi_exit_name *names, size_t count, bool arm)
{
	const struct gkhi_exit **scratch;
	struct gkhi_failure failure;
	int err;

	scratch = kvcalloc(count + 1, sizeof(*scratch), GFP_KERNEL);
	if (!scratch)
		return -ENOMEM;
	err = gkhi_arm_names(names, count, scratch, arm, &failure);
	kvfree(scratch);
	if (err) {
		mutex_lock(&refusal_lock);
		refusal = failure;
		mutex_unlock(&refusal_lock);
	}
	return as_errno(err);
}

/* ---- A file for each exit ---- */

static ssize_t exit_read(struct file *file, char __user *to, size_t room, loff_t *position)
{
	const struct node *node = file->private_data;
	struct gkhi_exit_status status;
	char text[2];
	int err;

	err = gkhi_find_exit(node->hook, node->name, &status);
	if (err)
		return as_errno(err);
	text[0] = status.state == GKHI_STATE_ARMED || status.state == GKHI_STATE_WAITING_ARMED ? '1' : '0';
	text[1] = '\n';
	return simple_read_from_buffer(to, room, position, text, sizeof(text));
}

static ssize_t exit_write(struct file *file, const char __user *from, size_t length, loff_t *position)
{
	const struct node *node = file->private_data;
	const struct gkhi_exit_name name = { node->hook, node->name };
	bool arm;
	int err;

	err = kstrtobool_from_user(from, length, &arm);
	if (!err)
		err = request(&name, 1, arm);
	return err ?: length;
}

static const struct file_operations exit_operations = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.read	= exit_read,
	.write	= exit_write,
	.llseek	= default_llseek,
};

/* `last` is what was found before, or NULL: what comes next in the registry mostly comes next here. */
static struct node *find(struct list_head *nodes, struct node *last, const char *name)
{
	struct node *node;

	if (last && !strcmp(last->name, name))
		return last;
	if (last && !list_is_last(&last->list, nodes)) {
		node = list_next_entry(last, list);
		if (!strcmp(node->name, name))
			return node;
	}
	list_for_each_entry(node, nodes, list) {
		if (!strcmp(node->name, name))
			return node;
	}
	return NULL;
}

/* What a refresh has seen: names only, so that nothing is created while the registry is locked. */
struct seen {
	char hook[GKHI_NAME_MAX + 1];
	char exit[GKHI_NAME_MAX + 1];		/* empty: the hook itself */
};

struct snapshot {
	struct seen *seen;
	size_t count;
	size_t capacity;
};

static void note(struct snapshot *snapshot, const char *hook, const char *exit)
{
	if (snapshot->count < snapshot->capacity) {
		strscpy(snapshot->seen[snapshot->count].hook, hook, sizeof(snapshot->seen->hook));
		strscpy(snapshot->seen[snapshot->count].exit, exit, sizeof(snapshot->seen->exit));
	}
	snapshot->count++;
}

static void note_hook(void *context, const struct gkhi_hook_status *hook)
{
	note(context, hook->name, "");
}

static void note_exit(void *context, const struct gkhi_exit_status *exit)
{
	note(context, exit->hook, exit->name);
}

/* True when all that there is fitted. */
static bool take(struct snapshot *snapshot)
{
	const struct gkhi_visitor visitor = { .context = snapshot, .hook = note_hook, .exit = note_exit };

	snapshot->count = 0;
	return !gkhi_visit(&visitor) && snapshot->count <= snapshot->capacity;
}

static struct node *add(struct list_head *nodes, const struct node *folder, const char *name)
{
	struct node *node;

	node = kzalloc(sizeof(*node), GFP_KERNEL);
	if (!node)
		return NULL;
	strscpy(node->name, name, sizeof(node->name));
	INIT_LIST_HEAD(&node->exits);
	if (folder) {
		node->hook = folder->name;
		node->dentry = debugfs_create_file(name, 0600, folder->dentry, node, &exit_operations);
	} else {
		node->dentry = debugfs_create_dir(name, hooks_folder);
	}
	list_add_tail(&node->list, nodes);
	return node;
}

static void sweep(struct list_head *nodes)
{
	struct node *node, *next;

	list_for_each_entry_safe(node, next, nodes, list) {
		sweep(&node->exits);
		if (node->seen)
			continue;
		/* Waits for those who are reading or writing it. */
		debugfs_remove(node->dentry);
		list_del(&node->list);
		kfree(node);
	}
}

static void forget(struct list_head *nodes)
{
	struct node *node;

	list_for_each_entry(node, nodes, list) {
		node->seen = false;
		forget(&node->exits);
	}
}

/* Makes the folders and files what the registry has. When memory is short they stay as they are until the next time. */
void gkhi_tree_refresh(void)
{
	struct snapshot snapshot = { .capacity = 64 };
	struct node *folder = NULL, *file;
	size_t i;

	mutex_lock(&tree_lock);
	if (!ready)
		goto unlock;
	for (;;) {
		snapshot.seen = kvcalloc(snapshot.capacity, sizeof(*snapshot.seen), GFP_KERNEL);
		if (!snapshot.seen)
			goto unlock;
		if (take(&snapshot))
			break;
		kvfree(snapshot.seen);
		if (snapshot.count <= snapshot.capacity)
			goto unlock;
		snapshot.capacity = snapshot.count + 64;
	}
	forget(&folders);
	for (i = 0; i < snapshot.count; i++) {
		const struct seen *seen = &snapshot.seen[i];

		folder = find(&folders, folder, seen->hook) ?: add(&folders, NULL, seen->hook);
		if (!folder)
			continue;
		folder->seen = true;
		if (!seen->exit[0])
			continue;
		file = find(&folder->exits, NULL, seen->exit) ?: add(&folder->exits, folder, seen->exit);
		if (file)
			file->seen = true;
	}
	sweep(&folders);
	kvfree(snapshot.seen);
unlock:
	mutex_unlock(&tree_lock);
}

/* ---- list ---- */

static void show_hook(void *context, const struct gkhi_hook_status *hook)
{
	seq_printf(context, "hook %s %s%s%s sites=%u jumping=%u exits=%u armed=%u inside=%llu prototype=\"%s\"\n", hook->name,
		   hook->kind & GKHI_KIND_RETURNING ? "returning" : "normal",
		   hook->kind & GKHI_KIND_GENERIC ? ",generic" : "",
		   hook->kind & GKHI_EXCLUSIVE ? ",exclusive" : "",
		   hook->sites, hook->jumping, hook->exits, hook->armed, hook->inside, hook->signature);
}

static void show_site(void *context, const struct gkhi_site_status *site)
{
	if (site->address)
		seq_printf(context, "site %s %pS %s\n", site->hook, (void *)site->address, site->jumps ? "jump" : "nop");
	else
		seq_printf(context, "site %s generic\n", site->hook);
}

static void show_exit(void *context, const struct gkhi_exit_status *exit)
{
	static const char * const states[] = {
		[GKHI_STATE_WAITING]		= "waiting",
		[GKHI_STATE_WAITING_ARMED]	= "waiting,armed",
		[GKHI_STATE_REGISTERED]		= "registered",
		[GKHI_STATE_ARMED]		= "armed",
	};

	seq_printf(context, "exit %s/%s order=%u %s%s%s%s%s calls=%llu", exit->hook, exit->name, exit->order,
		   exit->state < ARRAY_SIZE(states) && states[exit->state] ? states[exit->state] : "?",
		   exit->options & GKHI_PRIORITY_FIRST ? ",first" : "",
		   exit->options & GKHI_PRIORITY_LAST ? ",last" : "",
		   exit->options & GKHI_QUEUE_LIFO ? ",lifo" : "",
		   exit->options & GKHI_EXCLUSIVE ? ",exclusive" : "",
		   exit->calls);
	if (exit->watch)
		seq_printf(context, " slow=%llu nested=%llu watch=%llu", exit->slow, exit->nested, exit->watch);
	seq_putc(context, '\n');
}

static int list_show(struct seq_file *file, void *unused)
{
	const struct gkhi_visitor visitor = {
		.context = file, .hook = show_hook, .site = show_site, .exit = show_exit,
	};

	return as_errno(gkhi_visit(&visitor));
}
DEFINE_SHOW_ATTRIBUTE(list);

/* ---- arm, disarm ---- */

static ssize_t refusal_read(struct file *file, char __user *to, size_t room, loff_t *position)
{
	char text[sizeof(refusal.message) + 1];
	size_t length;

	mutex_lock(&refusal_lock);
	length = scnprintf(text, sizeof(text), "%s\n", refusal.message);
	mutex_unlock(&refusal_lock);
	return simple_read_from_buffer(to, room, position, text, length > 1 ? length : 0);
}

/* Splits "HOOK/EXIT HOOK/EXIT ..." in place, and returns how many there are, or -EINVAL. */
static ssize_t split(char *text, struct gkhi_exit_name *names, size_t capacity)
{
	size_t count = 0;
	char *word, *slash;

	while ((word = strsep(&text, " \t\n"))) {
		if (!*word)
			continue;
		slash = strchr(word, '/');
		if (!slash || count == capacity)
			return -EINVAL;
		*slash = 0;
		names[count].hook = word;
		names[count].exit = slash + 1;
		count++;
	}
	return count;
}

static ssize_t set_write(const char __user *from, size_t length, bool arm)
{
	/* The shortest is "h/e ". */
	const size_t capacity = length / 4 + 1;
	struct gkhi_exit_name *names;
	ssize_t count;
	char *text;
	int err;

	if (length > REQUEST_MAX)
		return -E2BIG;
	text = memdup_user_nul(from, length);
	if (IS_ERR(text))
		return PTR_ERR(text);
	names = kvcalloc(capacity, sizeof(*names), GFP_KERNEL);
	count = names ? split(text, names, capacity) : -ENOMEM;
	err = count < 0 ? count : request(names, count, arm);
	kvfree(names);
	kfree(text);
	return err ?: length;
}

static ssize_t arm_write(struct file *file, const char __user *from, size_t length, loff_t *position)
{
	return set_write(from, length, true);
}

static ssize_t disarm_write(struct file *file, const char __user *from, size_t length, loff_t *position)
{
	return set_write(from, length, false);
}

static const struct file_operations arm_operations = {
	.owner	= THIS_MODULE,
	.open	= nonseekable_open,
	.read	= refusal_read,
	.write	= arm_write,
};

static const struct file_operations disarm_operations = {
	.owner	= THIS_MODULE,
	.open	= nonseekable_open,
	.read	= refusal_read,
	.write	= disarm_write,
};

/* Without debugfs the module works all the same; its functions then return errors that the others ignore. */
int gkhi_tree_init(void)
{
	root = debugfs_create_dir("gkhi", NULL);
	if (IS_ERR(root))
		pr_notice("no files: debugfs says %ld\n", PTR_ERR(root));
	hooks_folder = debugfs_create_dir("hooks", root);
	debugfs_create_file("list", 0400, root, NULL, &list_fops);
	debugfs_create_file("arm", 0600, root, NULL, &arm_operations);
	debugfs_create_file("disarm", 0600, root, NULL, &disarm_operations);
	mutex_lock(&tree_lock);
	ready = true;
	mutex_unlock(&tree_lock);
	gkhi_tree_refresh();
	return 0;
}

void gkhi_tree_exit(void)
{
	mutex_lock(&tree_lock);
	ready = false;
	forget(&folders);
	sweep(&folders);
	mutex_unlock(&tree_lock);
	debugfs_remove(root);
}
