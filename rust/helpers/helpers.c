// SPDX-License-Identifier: GPL-2.0
/* Callable forms of macros, and of inline functions that bindgen cannot wrap, for Rust. */
#include <linux/cred.h>
#include <linux/dax.h>
#include <linux/fs.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/mnt_idmapping.h>
#include <linux/pagemap.h>
#include <linux/pid_namespace.h>
#include <linux/uidgid.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>
#include "helpers.h"

/* Unmaps what is left in the rings of a device that was reset, and deletes them. */
void virtiofs_helper_detach_and_del_vqs(struct virtio_device *vdev)
{
	struct virtqueue *vq;

	virtio_device_for_each_vq(vdev, vq) {
		while (virtqueue_detach_unused_buf(vq))
			;
	}
	vdev->config->del_vqs(vdev);
}

const struct cpumask *virtiofs_helper_vq_affinity(struct virtio_device *vdev, unsigned int index)
{
	if (!vdev->config->get_vq_affinity)
		return NULL;
	return vdev->config->get_vq_affinity(vdev, index);
}

void virtiofs_helper_set_page_dirty_lock(struct page *page)
{
	set_page_dirty_lock(page);
}

/* Whether a page is sure to be dirty: of a large folio of a file, another one may be. */
bool virtiofs_helper_page_is_dirty(struct page *page)
{
	struct folio *folio = page_folio(page);

	if (folio_test_large(folio) && !folio_test_swapbacked(folio) && !folio_test_hugetlb(folio))
		return false;
	return folio_test_dirty(folio);
}

/*
 * filemap_fault(), which does not tell who may try again that the page could not be read. Who
 * populates a mapping (MAP_POPULATE, mlock()) begins anew each time, and would never be told.
 */
static vm_fault_t fault_that_fails(struct vm_fault *vmf)
{
	const enum fault_flag flags = vmf->flags;
	struct folio *folio;
	vm_fault_t ret;

	folio = filemap_get_folio(vmf->vma->vm_file->f_mapping, vmf->pgoff);
	if (!IS_ERR(folio)) {
		/* Its last read has failed: the next one is waited for right here. */
		if (!folio_test_uptodate(folio) && !folio_test_locked(folio))
			vmf->flags &= ~FAULT_FLAG_ALLOW_RETRY;
		folio_put(folio);
	}
	ret = filemap_fault(vmf);
	vmf->flags = flags;
	return ret;
}

/*
 * filemap_fault(). finish_fault() would make all pages of a large folio writable for a store to one
 * in a shared mapping, and page_mkwrite() hears of that one alone. So they are mapped to be read
 * here, and the store faults again.
 */
vm_fault_t virtiofs_helper_fault(struct vm_fault *vmf)
{
	vm_fault_t ret = fault_that_fails(vmf);
	struct vm_area_struct *vma = vmf->vma;
	pgoff_t in_vma, pte, before, after;
	struct folio *folio;

	if (!(ret & VM_FAULT_LOCKED) || !(vmf->flags & FAULT_FLAG_WRITE) ||
	    !(vma->vm_flags & VM_SHARED))
		return ret;
	folio = page_folio(vmf->page);
	if (!folio_test_large(folio))
		return ret;

	/* As far as the folio, the mapping and the page table go. */
	in_vma = vmf->pgoff - vma_start_pgoff(vma);
	pte = pte_index(vmf->address);
	before = min3(vmf->pgoff - folio->index, in_vma, pte);
	after = min3(folio_next_index(folio) - vmf->pgoff, vma_pages(vma) - in_vma,
		     PTRS_PER_PTE - pte) - 1;
	folio_unlock(folio);
	vmf->flags &= ~FAULT_FLAG_WRITE;
	if (filemap_map_pages(vmf, vmf->pgoff - before, vmf->pgoff + after) & VM_FAULT_NOPAGE) {
		ret = (ret & VM_FAULT_MAJOR) | VM_FAULT_NOPAGE;
		goto put;
	}
	/*
	 * If others have locked it meanwhile, the next fault waits for them, which signals can end.
	 * If not, it is left to finish_fault().
	 */
	if (folio_trylock(folio)) {
		if (folio->mapping == vma->vm_file->f_mapping)
			return ret;
		folio_unlock(folio);
	}
	ret = VM_FAULT_NOPAGE;
put:
	folio_put(folio);
	vmf->page = NULL;
	return ret;
}

void *virtiofs_helper_alloc_inode(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

uid_t virtiofs_helper_current_fsuid(struct user_namespace *ns)
{
	return from_kuid(ns, current_fsuid());
}

gid_t virtiofs_helper_current_fsgid(struct user_namespace *ns)
{
	return from_kgid(ns, current_fsgid());
}

struct folio *virtiofs_helper_folio_of(struct page *page)
{
	return page_folio(page);
}

/* The folio to write to: not locked, made if need be, of about len bytes. */
struct folio *virtiofs_helper_write_folio(struct address_space *mapping, pgoff_t index,
					  size_t len)
{
	return __filemap_get_folio(mapping, index,
				   FGP_WRITE | FGP_CREAT | FGP_FOR_MMAP | fgf_set_order(len),
				   mapping_gfp_mask(mapping));
}

/* The folio to read: not locked, made if need be. */
struct folio *virtiofs_helper_read_folio(struct address_space *mapping, pgoff_t index)
{
	return __filemap_get_folio(mapping, index, FGP_CREAT | FGP_FOR_MMAP | FGP_ACCESSED,
				   mapping_gfp_mask(mapping));
}

/* A folio of a page cache that is not read from anywhere: locked, on demand made. */
struct folio *virtiofs_helper_data_folio(struct address_space *mapping, pgoff_t index, bool create)
{
	return __filemap_get_folio(mapping, index,
				   FGP_LOCK | FGP_ACCESSED | (create ? FGP_CREAT : 0),
				   mapping_gfp_mask(mapping));
}

uid_t virtiofs_helper_mapped_fsuid(struct mnt_idmap *idmap, struct user_namespace *ns)
{
	return from_kuid(ns, mapped_fsuid(idmap, ns));
}

gid_t virtiofs_helper_mapped_fsgid(struct mnt_idmap *idmap, struct user_namespace *ns)
{
	return from_kgid(ns, mapped_fsgid(idmap, ns));
}

uid_t virtiofs_helper_iattr_uid(struct mnt_idmap *idmap, struct user_namespace *ns,
				const struct iattr *attr)
{
	return from_kuid(ns, from_vfsuid(idmap, ns, attr->ia_vfsuid));
}

gid_t virtiofs_helper_iattr_gid(struct mnt_idmap *idmap, struct user_namespace *ns,
				const struct iattr *attr)
{
	return from_kgid(ns, from_vfsgid(idmap, ns, attr->ia_vfsgid));
}

void virtiofs_helper_stat_owner(struct kstat *stat, struct mnt_idmap *idmap,
				struct user_namespace *ns, uid_t uid, gid_t gid)
{
	stat->uid = vfsuid_into_kuid(make_vfsuid(idmap, ns, make_kuid(ns, uid)));
	stat->gid = vfsgid_into_kgid(make_vfsgid(idmap, ns, make_kgid(ns, gid)));
}

/* The group of a directory if the task is in it, but not as its fsgid; else -1. */
gid_t virtiofs_helper_supplementary_group(struct mnt_idmap *idmap, const struct inode *dir)
{
	vfsgid_t group = i_gid_into_vfsgid(idmap, dir);

	if (vfsgid_eq_kgid(group, current_fsgid()) || !vfsgid_in_group_p(group))
		return -1;
	return from_kgid(i_user_ns(dir), dir->i_gid);
}

bool virtiofs_helper_in_group_or_capable(struct mnt_idmap *idmap, const struct inode *inode)
{
	return in_group_or_capable(idmap, inode, i_gid_into_vfsgid(idmap, inode));
}

/* Only for an inode that nobody can find yet. */
void virtiofs_helper_make_acls_passive(struct inode *inode)
{
#ifdef CONFIG_FS_POSIX_ACL
	inode->i_acl = ACL_DONT_CACHE;
	inode->i_default_acl = ACL_DONT_CACHE;
#endif
}

bool virtiofs_helper_acls_are_passive(const struct inode *inode)
{
#ifdef CONFIG_FS_POSIX_ACL
	return READ_ONCE(inode->i_acl) == ACL_DONT_CACHE;
#else
	return true;
#endif
}

/* The process if there is one with this number of the initial namespace, else 0. */
pid_t virtiofs_helper_known_pid(pid_t nr)
{
	guard(rcu)();
	return pid_nr(find_pid_ns(nr, &init_pid_ns));
}

bool virtiofs_helper_reserve_memory(resource_size_t start, resource_size_t len, const char *name)
{
	return request_mem_region(start, len, name);
}

/* Whether no page of device memory is in a file or a page table, or pinned. */
bool virtiofs_helper_memory_is_unused(resource_size_t start, resource_size_t len)
{
	unsigned long pfn = PHYS_PFN(start), end = PHYS_PFN(start + len);

	for (; pfn < end; pfn++) {
		struct page *page = pfn_to_page(pfn);

		if (PageCompound(page) || page_ref_count(page) || page->mapping)
			return false;
		cond_resched();
	}
	return true;
}

/* Whether a page is one of a range of physical memory. It need not be valid. */
bool virtiofs_helper_page_is_within(const struct page *page, resource_size_t start,
				    resource_size_t len)
{
	resource_size_t at = PFN_PHYS(page_to_pfn(page));

	return at >= start && at - start < len;
}

/*
 * The first page of device memory that somebody has a reference to, or NULL. Of a huge page
 * the head has the references.
 */
struct page *virtiofs_helper_busy_page(resource_size_t start, resource_size_t len)
{
	unsigned long pfn = PHYS_PFN(start), end = PHYS_PFN(start + len);

	for (; pfn < end; pfn++) {
		struct page *page = compound_head(pfn_to_page(pfn));

		if (!dax_page_is_idle(page))
			return page;
	}
	return NULL;
}

/* Whether nobody has a reference to a page of @dax. Once this is gone, it is not looked at. */
static bool page_is_idle(struct dax_device *dax, struct page *page)
{
	int id = dax_read_lock();
	bool idle = !dax_alive(dax) || dax_page_is_idle(page);

	dax_read_unlock(id);
	return idle;
}

/*
 * Waits in task state @state until nobody has a reference to a page of @dax any more:
 * free_zone_device_folio() wakes. @sleep holds no lock while it sleeps.
 */
int virtiofs_helper_wait_page_idle(struct dax_device *dax, struct page *page, unsigned int state,
				   void (*sleep)(struct inode *inode), struct inode *inode)
{
	return ___wait_var_event(page, page_is_idle(dax, page), state, 0, 0, sleep(inode));
}

/* Whether a mapping can show memory of a device; it may then be shown with huge pages. */
bool virtiofs_helper_prepare_dax(struct vm_area_desc *desc, struct dax_device *dax)
{
	if (!daxdev_mapping_supported(desc, file_inode(desc->file), dax))
		return false;
	vma_desc_set_flags(desc, VMA_HUGEPAGE_BIT);
	return true;
}

bool virtiofs_helper_is_mayshare(const struct vm_area_desc *desc)
{
	return vma_desc_test(desc, VMA_MAYSHARE_BIT);
}

struct workqueue_struct *virtiofs_helper_alloc_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
}
