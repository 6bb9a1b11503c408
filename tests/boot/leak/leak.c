// SPDX-License-Identifier: GPL-2.0
/*
 * Leaks memory on purpose, so that a test can show that the leak detector sees leaks.
 */
#include <linux/module.h>
#include <linux/slab.h>

/*
 * As many as a test has rounds. The allocator's per-CPU arrays keep the pointers that they handed out last, which the leak
 * detector takes for references: of a dozen leaks it sees two, of a hundred nearly all.
 */
#define LEAKS 100

static noinline void leak_on_purpose(void)
{
	int i;

	for (i = 0; i < LEAKS; i++) {
		char *memory = kmalloc(777, GFP_KERNEL);

		if (memory)
			memory[0] = i;
		OPTIMIZER_HIDE_VAR(memory);
	}
}

static int __init leak_init(void)
{
	leak_on_purpose();
	return 0;
}

static void __exit leak_exit(void)
{
}

module_init(leak_init);
module_exit(leak_exit);
MODULE_DESCRIPTION("Leaks memory on purpose");
MODULE_LICENSE("GPL");
