/* SPDX-License-Identifier: GPL-2.0 */
/* Headers for which the kernel's `bindings` crate has no, or no complete, items. */
#include <linux/hrtimer_types.h>
#include <linux/backing-dev.h>
#include <linux/completion.h>
#include <linux/dax.h>
#include <linux/filelock.h>
#include <linux/exportfs.h>
#include <linux/falloc.h>
#include <linux/fileattr.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/fs_struct.h>
#include <linux/iomap.h>
#include <linux/kobject.h>
#include <linux/memremap.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>
#include <linux/scatterlist.h>
#include <linux/sched/signal.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/siphash.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/statfs.h>
#include <linux/task_io_accounting_ops.h>
#include <linux/uio.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/writeback.h>
#include <linux/xattr.h>
#include <uapi/linux/magic.h>
#include <uapi/linux/virtio_fs.h>

/* `bindgen` does not evaluate these (casts, non-literal macros). */
const __u32 RUST_CONST_HELPER_VIRTIO_DEV_ANY_ID = VIRTIO_DEV_ANY_ID;

/* rust/vfs */
const unsigned long RUST_CONST_HELPER_SB_RDONLY = SB_RDONLY;
const unsigned long RUST_CONST_HELPER_SB_NODEV = SB_NODEV;
const unsigned long RUST_CONST_HELPER_SB_NOSUID = SB_NOSUID;
const unsigned long RUST_CONST_HELPER_SB_NOEXEC = SB_NOEXEC;
const unsigned long RUST_CONST_HELPER_SB_POSIXACL = SB_POSIXACL;
const unsigned long RUST_CONST_HELPER_SB_NOSEC = SB_NOSEC;
const unsigned long RUST_CONST_HELPER_SB_ACTIVE = SB_ACTIVE;
const unsigned long RUST_CONST_HELPER_SB_I_VERSION = SB_I_VERSION;
const unsigned int RUST_CONST_HELPER_LOOKUP_FOLLOW = LOOKUP_FOLLOW;
const unsigned int RUST_CONST_HELPER_LOOKUP_DIRECTORY = LOOKUP_DIRECTORY;
const unsigned int RUST_CONST_HELPER_LOOKUP_AUTOMOUNT = LOOKUP_AUTOMOUNT;
const unsigned int RUST_CONST_HELPER_LOOKUP_REVAL = LOOKUP_REVAL;
const unsigned int RUST_CONST_HELPER_LOOKUP_RCU = LOOKUP_RCU;
const unsigned int RUST_CONST_HELPER_LOOKUP_OPEN = LOOKUP_OPEN;
const unsigned int RUST_CONST_HELPER_LOOKUP_CREATE = LOOKUP_CREATE;
const unsigned int RUST_CONST_HELPER_LOOKUP_EXCL = LOOKUP_EXCL;
const unsigned int RUST_CONST_HELPER_LOOKUP_RENAME_TARGET = LOOKUP_RENAME_TARGET;
const fmode_t RUST_CONST_HELPER_FMODE_NOWAIT = FMODE_NOWAIT;
const fmode_t RUST_CONST_HELPER_FMODE_CAN_ODIRECT = FMODE_CAN_ODIRECT;
const fmode_t RUST_CONST_HELPER_FMODE_CREATED = FMODE_CREATED;
const fmode_t RUST_CONST_HELPER_FMODE_OPENED = FMODE_OPENED;
const fmode_t RUST_CONST_HELPER_FMODE_READ = FMODE_READ;
const fmode_t RUST_CONST_HELPER_FMODE_WRITE = FMODE_WRITE;
const int RUST_CONST_HELPER_IOCB_APPEND = IOCB_APPEND;
const int RUST_CONST_HELPER_IOCB_DSYNC = IOCB_DSYNC;
const int RUST_CONST_HELPER_IOCB_NOWAIT = IOCB_NOWAIT;
const unsigned int RUST_CONST_HELPER_FL_SLEEP = FL_SLEEP;
const unsigned int RUST_CONST_HELPER_FL_OFDLCK = FL_OFDLCK;
const xa_mark_t RUST_CONST_HELPER_PAGECACHE_TAG_DIRTY = PAGECACHE_TAG_DIRTY;
const xa_mark_t RUST_CONST_HELPER_PAGECACHE_TAG_WRITEBACK = PAGECACHE_TAG_WRITEBACK;
const loff_t RUST_CONST_HELPER_MAX_LFS_FILESIZE = MAX_LFS_FILESIZE;
const slab_flags_t RUST_CONST_HELPER_SLAB_RECLAIM_ACCOUNT = SLAB_RECLAIM_ACCOUNT;
const slab_flags_t RUST_CONST_HELPER_SLAB_ACCOUNT = SLAB_ACCOUNT;

#include "helpers.h"
