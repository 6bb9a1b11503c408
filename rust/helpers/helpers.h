/* SPDX-License-Identifier: GPL-2.0 */
/* Callable forms of macros, and of inline functions that bindgen cannot wrap. */
#ifndef _VIRTIOFS_HELPERS_H
#define _VIRTIOFS_HELPERS_H

#include <linux/types.h>

struct address_space;
struct cpumask;
struct dax_device;
struct folio;
struct iattr;
struct inode;
struct kmem_cache;
struct kobject;
struct kstat;
struct mnt_idmap;
struct page;
struct super_block;
struct user_namespace;
struct virtio_device;
struct vm_area_desc;
struct workqueue_struct;

/* virtio */
void virtiofs_helper_detach_and_del_vqs(struct virtio_device *vdev);
const struct cpumask *virtiofs_helper_vq_affinity(struct virtio_device *vdev, unsigned int index);

/* memory */
void virtiofs_helper_set_page_dirty_lock(struct page *page);
bool virtiofs_helper_page_is_dirty(struct page *page);
vm_fault_t virtiofs_helper_fault(struct vm_fault *vmf);
struct folio *virtiofs_helper_folio_of(struct page *page);
struct folio *virtiofs_helper_write_folio(struct address_space *mapping, unsigned long index,
					  size_t len);
struct folio *virtiofs_helper_read_folio(struct address_space *mapping, unsigned long index);
struct folio *virtiofs_helper_data_folio(struct address_space *mapping, unsigned long index,
					 bool create);
bool virtiofs_helper_reserve_memory(resource_size_t start, resource_size_t len, const char *name);
bool virtiofs_helper_memory_is_unused(resource_size_t start, resource_size_t len);
bool virtiofs_helper_page_is_within(const struct page *page, resource_size_t start,
				    resource_size_t len);
struct page *virtiofs_helper_busy_page(resource_size_t start, resource_size_t len);
int virtiofs_helper_wait_page_idle(struct dax_device *dax, struct page *page, unsigned int state,
				   void (*sleep)(struct inode *inode), struct inode *inode);
bool virtiofs_helper_prepare_dax(struct vm_area_desc *desc, struct dax_device *dax);
bool virtiofs_helper_is_mayshare(const struct vm_area_desc *desc);

/* vfs */
void *virtiofs_helper_alloc_inode(struct super_block *sb, struct kmem_cache *cache);
uid_t virtiofs_helper_current_fsuid(struct user_namespace *ns);
gid_t virtiofs_helper_current_fsgid(struct user_namespace *ns);
uid_t virtiofs_helper_mapped_fsuid(struct mnt_idmap *idmap, struct user_namespace *ns);
gid_t virtiofs_helper_mapped_fsgid(struct mnt_idmap *idmap, struct user_namespace *ns);
uid_t virtiofs_helper_iattr_uid(struct mnt_idmap *idmap, struct user_namespace *ns,
				const struct iattr *attr);
gid_t virtiofs_helper_iattr_gid(struct mnt_idmap *idmap, struct user_namespace *ns,
				const struct iattr *attr);
void virtiofs_helper_stat_owner(struct kstat *stat, struct mnt_idmap *idmap,
				struct user_namespace *ns, uid_t uid, gid_t gid);
gid_t virtiofs_helper_supplementary_group(struct mnt_idmap *idmap, const struct inode *dir);
bool virtiofs_helper_in_group_or_capable(struct mnt_idmap *idmap, const struct inode *inode);
void virtiofs_helper_make_acls_passive(struct inode *inode);
bool virtiofs_helper_acls_are_passive(const struct inode *inode);
pid_t virtiofs_helper_known_pid(pid_t nr);

/* work */
struct workqueue_struct *virtiofs_helper_alloc_workqueue(const char *name);

#endif
