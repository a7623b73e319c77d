// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Instructions that fault, one in each function, with the kinds of exception-table entries that the kernel has.
 *
 * An ioctl on /dev/dprobes_faults, whatever its number, takes a struct faults_run: runs the case of that name with the registers there, in the
 * caller's context, and writes them back as they are afterwards. `outcome` says whether the instruction completed or the fix-up was taken.
 *
 * /sys/module/dprobes_faults/parameters/ has `instructions`, the names and the addresses of the instructions, and `page`, the address of a page
 * of zeros behind which nothing is mapped.
 */
#include <asm/asm.h>
#include <asm/fpu/api.h>
#include <asm/nospec-branch.h>
#include <asm/smap.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/objtool.h>
#include <linux/vmalloc.h>

#include "copies.h"

/* The kernel has given it up for the one for all accesses to user memory. */
#ifndef EX_TYPE_COPY
#define EX_TYPE_COPY EX_TYPE_UACCESS
#endif

enum outcome { NEVER_RUN, COMPLETED, FIXED_UP };

struct faults_run {
	char name[32];
	u64 outcome;
	u64 rax, rcx, rdx, rsi, rdi;
};

struct faults_case {
	const char *name;
	const unsigned long *instruction;
	void (*run)(struct faults_run *run);
};

/* The instruction is at the label 1; what is before it prepares, what is after it cleans up on both ways. */
#define RUN(name, before, instruction, entry, after, run)					\
	asm volatile(before "\n"								\
		     ANNOTATE_NOENDBR "\n"							\
		     "1:	" instruction "\n"						\
		     "	movq %[completed], %c[outcome](%%rbx)\n"				\
		     "	jmp 3f\n"								\
		     "2:	movq %[fixed_up], %c[outcome](%%rbx)\n"				\
		     "3:	" after "\n"							\
		     entry									\
		     ".pushsection .rodata, \"a\"\n"						\
		     ".balign 8\n"								\
		     "faults_" #name "_instruction: .quad 1b\n"					\
		     ".popsection\n"								\
		     : "+a" ((run)->rax), "+c" ((run)->rcx), "+d" ((run)->rdx),		\
		       "+S" ((run)->rsi), "+D" ((run)->rdi)					\
		     : "b" (run), [outcome] "i" (offsetof(struct faults_run, outcome)),		\
		       [completed] "i" (COMPLETED), [fixed_up] "i" (FIXED_UP)			\
		     : "memory", "cc")

/* Not to be cloned or inlined: there must be one copy, under this name. */
#define DEFINE_CASE(name, before, instruction, entry, after)					\
	void faults_##name(struct faults_run *run);						\
	noinline __noclone void faults_##name(struct faults_run *run)				\
	{											\
		RUN(name, before, instruction, entry, after, run);				\
	}

#define LOAD	"movq (%%rsi), %%rdx"
#define TYPE(type)		_ASM_EXTABLE_TYPE(1b, 2b, type)
#define TYPE_REG(type, reg)	_ASM_EXTABLE_TYPE_REG(1b, 2b, type, reg)

/* All of the kernel's kinds that handle every exception alike, whatever the instruction, but for those that end with a warning. */
DEFINE_CASE(default, "", LOAD, TYPE(EX_TYPE_DEFAULT), "")
DEFINE_CASE(fault, "", LOAD, TYPE(EX_TYPE_FAULT), "")
DEFINE_CASE(uaccess, "", LOAD, TYPE(EX_TYPE_UACCESS), "")
DEFINE_CASE(copy, "", LOAD, TYPE(EX_TYPE_COPY), "")
DEFINE_CASE(default_mce_safe, "", LOAD, TYPE(EX_TYPE_DEFAULT_MCE_SAFE), "")
DEFINE_CASE(fault_mce_safe, "", LOAD, TYPE(EX_TYPE_FAULT_MCE_SAFE), "")
DEFINE_CASE(fault_sgx, "", LOAD, TYPE(EX_TYPE_FAULT_SGX), "")
DEFINE_CASE(efault_reg, "", LOAD, TYPE_REG(EX_TYPE_EFAULT_REG, %%rcx), "")
DEFINE_CASE(zero_reg, "", LOAD, TYPE_REG(EX_TYPE_ZERO_REG, %%rdi), "")
DEFINE_CASE(one_reg, "", LOAD, TYPE_REG(EX_TYPE_ONE_REG, %%rdx), "")
DEFINE_CASE(rdmsr_safe, "", LOAD, TYPE_REG(EX_TYPE_RDMSR_SAFE, %%rdi), "")
DEFINE_CASE(wrmsr_safe, "", LOAD, TYPE_REG(EX_TYPE_WRMSR_SAFE, %%rdi), "")
DEFINE_CASE(ucopy_len8, "", LOAD, TYPE_REG(EX_TYPE_UCOPY_LEN8, %%rdx), "")
DEFINE_CASE(zeropad, "", LOAD, TYPE_REG(EX_TYPE_ZEROPAD, %%rdx), "")

/* Other instructions and other exceptions; this kind of entry puts the exception's number into rax. */
DEFINE_CASE(store, "", "movb %%dl, (%%rdi)", TYPE(EX_TYPE_FAULT), "")
DEFINE_CASE(locked, "", "lock orl $0, (%%rdi)", TYPE(EX_TYPE_FAULT), "")
DEFINE_CASE(compare, "", "cmpq (%%rsi), %%rdx", TYPE(EX_TYPE_FAULT), "")
DEFINE_CASE(repeated, "", "rep movsb", TYPE(EX_TYPE_FAULT), "")
DEFINE_CASE(repeated_load, "", "rep lodsq", TYPE_REG(EX_TYPE_UCOPY_LEN8, %%rdx), "")
DEFINE_CASE(call, ANNOTATE_RETPOLINE_SAFE, "call *(%%rsi)", TYPE(EX_TYPE_FAULT), "")
DEFINE_CASE(stack_segment, "xchgq %%rsi, %%rbp", "movq (%%rbp), %%rdx", TYPE(EX_TYPE_FAULT), "xchgq %%rsi, %%rbp")
DEFINE_CASE(divide, "", "divq %%rcx", TYPE(EX_TYPE_FAULT), "")
/* Undefined as long as virtual machine extensions are off. */
DEFINE_CASE(undefined, "", "vmxoff", TYPE(EX_TYPE_FAULT), "")
/* 1 / 0, with that exception unmasked. */
DEFINE_CASE(x87, "fninit; pushq $0x37b; fldcw (%%rsp); popq %%rcx; fldz; fld1; fdivp", "fwait", TYPE(EX_TYPE_FAULT),
	    "fnclex; fninit")

/* Without an entry: fatal. */
void faults_oops(struct faults_run *run);
noinline __noclone void faults_oops(struct faults_run *run)
{
	asm volatile(ANNOTATE_NOENDBR "\n1:	movq (%%rsi), %%rdx\n"
		     ".pushsection .rodata, \"a\"\n"
		     ".balign 8\n"
		     "faults_oops_instruction: .quad 1b\n"
		     ".popsection\n"
		     : "+d" (run->rdx)
		     : "a" (run->rax), "c" (run->rcx), "S" (run->rsi), "D" (run->rdi)
		     : "memory");
	run->outcome = COMPLETED;
}

static void user_load(struct faults_run *run)
{
	stac();
	RUN(user_load, "", LOAD, _ASM_EXTABLE_UA(1b, 2b), "", run);
	clac();
}

static void user_copy(struct faults_run *run)
{
	stac();
	RUN(user_copy, "", "rep movsb", _ASM_EXTABLE_UA(1b, 2b), "", run);
	clac();
}

static void x87_in_kernel(struct faults_run *run)
{
	kernel_fpu_begin();
	faults_x87(run);
	kernel_fpu_end();
}

/* Every name twice: its function, and what the assembler has written. */
#define CASES(CASE)										\
	CASE(default, faults_default) CASE(fault, faults_fault) CASE(uaccess, faults_uaccess)	\
	CASE(copy, faults_copy) CASE(default_mce_safe, faults_default_mce_safe)			\
	CASE(fault_mce_safe, faults_fault_mce_safe) CASE(fault_sgx, faults_fault_sgx)		\
	CASE(efault_reg, faults_efault_reg) CASE(zero_reg, faults_zero_reg)			\
	CASE(one_reg, faults_one_reg) CASE(rdmsr_safe, faults_rdmsr_safe)			\
	CASE(wrmsr_safe, faults_wrmsr_safe) CASE(ucopy_len8, faults_ucopy_len8)			\
	CASE(zeropad, faults_zeropad) CASE(store, faults_store) CASE(locked, faults_locked)	\
	CASE(compare, faults_compare) CASE(repeated, faults_repeated)				\
	CASE(repeated_load, faults_repeated_load) CASE(call, faults_call)			\
	CASE(stack_segment, faults_stack_segment) CASE(divide, faults_divide)			\
	CASE(undefined, faults_undefined) CASE(x87, x87_in_kernel) CASE(oops, faults_oops)	\
	CASE(user_load, user_load) CASE(user_copy, user_copy)

#define DECLARE(name, function) extern const unsigned long faults_##name##_instruction;
CASES(DECLARE)

#define LIST(name, function) { #name, &faults_##name##_instruction, function },
static const struct faults_case cases[] = { CASES(LIST) };

static void *page;

static long faults_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct faults_run run;
	size_t i;

	if (copy_from_user(&run, (void __user *)argument, sizeof(run)))
		return -EFAULT;
	for (i = 0; i < ARRAY_SIZE(cases); i++)
		if (!strncmp(run.name, cases[i].name, sizeof(run.name)))
			break;
	if (i == ARRAY_SIZE(cases))
		return -ENOENT;
	cases[i].run(&run);
	return copy_to_user((void __user *)argument, &run, sizeof(run)) ? -EFAULT : 0;
}

static const struct file_operations faults_operations = {
	.owner		= THIS_MODULE,
	.open		= nonseekable_open,
	.unlocked_ioctl	= faults_ioctl,
};

static struct miscdevice faults_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dprobes_faults",
	.fops	= &faults_operations,
	.mode	= 0600,
};

static int show_instructions(char *buffer, const struct kernel_param *param)
{
	int length = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++)
		length += sysfs_emit_at(buffer, length, "%s 0x%lx\n", cases[i].name, *cases[i].instruction);
	return length;
}

static const struct kernel_param_ops instructions_operations = { .get = show_instructions };
module_param_cb(instructions, &instructions_operations, NULL, 0400);

static int show_page(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "0x%lx\n", (unsigned long)page);
}

static const struct kernel_param_ops page_operations = { .get = show_page };
module_param_cb(page, &page_operations, NULL, 0400);

static int __init faults_init(void)
{
	int err;

	page = vzalloc(PAGE_SIZE);
	if (!page)
		return -ENOMEM;
	err = copies_init();
	if (err)
		goto no_copies;
	err = misc_register(&faults_device);
	if (err)
		goto no_device;
	return 0;

no_device:
	copies_exit();
no_copies:
	vfree(page);
	return err;
}
module_init(faults_init);

static void __exit faults_exit(void)
{
	misc_deregister(&faults_device);
	copies_exit();
	vfree(page);
}
module_exit(faults_exit);

MODULE_DESCRIPTION("Instructions that fault, for DProbes to probe");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
