# SPDX-License-Identifier: GPL-2.0
# The verbs that people type. What the kernel's build system reads is Kbuild.

KDIR ?= /lib/modules/$(shell uname -r)/build
LLVM ?= 1
KBUILD = $(MAKE) -C $(KDIR) M=$(CURDIR) $(if $(MO),MO=$(MO)) ARCH=x86_64 LLVM=$(LLVM)
ENTER = +scripts/enter
# To scripts, by their names.
export SHARE TAG

all:
	@[ -e $(KDIR)/Makefile ] || { echo "no kernel build directory $(KDIR): make KDIR=DIRECTORY, or make run" >&2; exit 1; }
	$(KBUILD) modules

# To updates/, which depmod prefers over the kernel's own driver.
install: all
	$(KBUILD) modules_install

run:
	$(ENTER) scripts/run.py $(ARGS)

shell:
	$(ENTER) scripts/run.py --shell $(ARGS)

test:
	$(ENTER) scripts/test.py $(ARGS)

bench:
	$(ENTER) scripts/bench.py $(ARGS)

bench-dax:
	$(ENTER) scripts/bench_dax.py $(ARGS)

check:
	$(ENTER) scripts/check.py $(ARGS)

clean:
	find . -name .git -prune -o \( $(LEFT_FILES) \) -exec rm -f {} +
	find . -name .git -prune -o -type d \( $(LEFT_DIRECTORIES) \) -prune -exec rm -rf {} +

LEFT_FILES = -name '*.o' -o -name '*.ko' -o -name '*.mod' -o -name '*.mod.c' -o -name '.*.cmd' -o -name '.*.d' -o \
	-name '*.rmeta' -o -name '*.a' -o -name '*.stamp' -o -name modules.order -o -name Module.symvers -o \
	-name .module-common.o -o -name rust-project.json -o -name bindings_generated.rs -o -name static_fns.c
LEFT_DIRECTORIES = -name target -o -name __pycache__ -o -name .pytest_cache -o -name .tmp_versions -o -path ./doc

help:
	@echo 'make KDIR=DIR               builds the module against a prepared Linux 7.3 tree with CONFIG_RUST=y'
	@echo 'make install KDIR=DIR       installs it where depmod prefers it over the in-tree driver'
	@echo 'make run [SHARE=DIR TAG=T]  boots a guest, mounts a directory, compares every file and link with the host'
	@echo 'make shell [SHARE=DIR]      an interactive guest with the directory mounted on /mnt'
	@echo 'make test                   host tests, KUnit suites and boot tests; ARGS=--help tells how to choose'
	@echo 'make bench                  this driver, the C driver and virtio-9p measured in turn; ARGS=--quick, ARGS=--help'
	@echo 'make bench-dax              this driver and the C driver with a DAX window, and whether the goals are met'
	@echo 'make check                  formatting, lints, documentation, scripts'
	@echo 'make clean                  removes what builds left in this tree (the cache is $$VIRTIOFS_CACHE, else'
	@echo '                            ~/.cache/virtiofs-rust; delete it for a cold start)'

.PHONY: all install run shell test bench bench-dax check clean help
