// SPDX-License-Identifier: GPL-2.0
/*
 * Leaks memory on purpose, so that a test can show that the leak detector sees leaks.
 */
#include <linux/module.h>
#include <linux/slab.h>

/*
 * Many, as the leak detector misses single ones: of 16 it saw 2, of 100 it saw 79. Maybe stale
 * pointers, as in the allocator's per-CPU arrays, look like references to it.
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
