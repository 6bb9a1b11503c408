// SPDX-License-Identifier: GPL-2.0

//! Operation tables of inodes, by kind.

use crate::{
    contents::{
        dax_fault::Faults,
        page_cache::Pages, //
    },
    dax::mapped_file::MappedFile,
    filesystem::VirtioFs,
    inode::{
        iget::Kinds,
        killpriv, //
    },
    mount::file_operations::{
        DirectoryFiles,
        RegularFiles, //
    },
    names::{
        dir::Directory,
        symlink::Symlink, //
    },
};
use fuse_proto::{
    Attr,
    AttrFlags,
    FileType,
    InitFlags, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};
use vfs::{
    inode::NewInode,
    Inode,
    InodeRef, //
};

impl Kinds for VirtioFs {
    fn finish(mut inode: NewInode<VirtioFs>, attr: &Attr, dax: bool) -> Result<InodeRef<VirtioFs>> {
        let session = inode.super_block().data().session()?.clone();
        match attr.kind {
            FileType::Directory => {
                if session.has(InitFlags::SUBMOUNTS) && attr.flags.contains(AttrFlags::SUBMOUNT) {
                    inode.set_automount();
                }
                Ok(inode.into_directory::<Directory, DirectoryFiles>())
            }
            FileType::Regular if dax => {
                let known = inode.data().known().ok_or(ESTALE)?.clone();
                let gate = inode.super_block().data().gate().clone();
                let file = MappedFile::new(known, inode.weak()?, gate)?;
                inode.data().is_mapped_as(file);
                Ok(inode.into_dax::<Attributes, RegularFiles, Faults>())
            }
            FileType::Regular => {
                // A folio is read by one request, and one is enough to write it.
                let pages = session.max_payload().min(session.max_write()) / PAGE_SIZE;
                let order = pages.checked_ilog2().unwrap_or(0);
                inode.set_max_folio_order(order);
                if killpriv::by_daemon(&session) {
                    inode.set_nosec();
                }
                // The device reads folios while they are written back.
                inode.set_stable_writes();
                inode.set_writeback_may_stall();
                Ok(inode.into_regular::<Attributes, RegularFiles, Pages>())
            }
            FileType::Symlink => Ok(inode.into_symlink::<Symlink>()),
            FileType::Fifo | FileType::CharDevice | FileType::BlockDevice | FileType::Socket => {
                let kind = vfs::attr::FileType::from_mode(attr.kind.mode()).ok_or(EIO)?;
                inode.into_special::<Attributes>(kind, attr.rdev.to_wire())
            }
        }
    }
}

/// Implements what the VFS asks of every inode for `$type`, which the operation tables of all kinds of inodes are made with.
macro_rules! impl_inode_operations {
    ($type:ty) => {
        #[vtable]
        impl ::vfs::inode::Operations for $type {
            type FileSystem = VirtioFs;

            fn getattr(
                inode: &Inode<VirtioFs>,
                stat: &mut ::vfs::attr::Stat<'_>,
                sync: ::vfs::attr::StatSync,
            ) -> Result {
                $crate::metadata::getattr::getattr(inode, stat, sync)
            }

            fn setattr(
                inode: &Inode<VirtioFs>,
                attrs: &mut ::vfs::attr::NewAttributes<'_, VirtioFs>,
            ) -> Result {
                $crate::metadata::setattr::setattr(inode, attrs)
            }

            fn permission(
                inode: &Inode<VirtioFs>,
                idmap: &::vfs::cred::Idmap,
                mask: ::vfs::inode::AccessMask,
            ) -> Result {
                $crate::metadata::getattr::permission(inode, idmap, mask)
            }

            fn permission_rcu(
                inode: ::vfs::inode::RcuInode<'_, VirtioFs>,
                idmap: &::vfs::cred::Idmap,
                mask: ::vfs::inode::AccessMask,
            ) -> Result {
                $crate::metadata::getattr::permission_rcu(inode, idmap, mask)
            }

            fn flags(
                inode: &Inode<VirtioFs>,
                wanted: ::vfs::inode::InodeFlags,
            ) -> Result<::vfs::inode::InodeFlags> {
                $crate::metadata::ioctl::flags(inode, wanted)
            }

            fn set_flags(inode: &Inode<VirtioFs>, flags: ::vfs::inode::InodeFlags) -> Result {
                $crate::metadata::ioctl::set_flags(inode, flags)
            }

            fn listxattr(inode: &Inode<VirtioFs>, names: &mut ::vfs::xattr::Buffer<'_>) -> Result {
                $crate::metadata::xattr::list(inode, names)
            }

            fn get_acl(
                inode: &Inode<VirtioFs>,
                kind: ::vfs::acl::AclType,
            ) -> Result<Option<::vfs::acl::Acl>> {
                $crate::metadata::acl::get(inode, kind)
            }

            fn set_acl(
                idmap: &::vfs::cred::Idmap,
                inode: &Inode<VirtioFs>,
                kind: ::vfs::acl::AclType,
                acl: Option<&::vfs::acl::Acl>,
            ) -> Result {
                $crate::metadata::acl::set(idmap, inode, kind, acl)
            }
        }
    };
}
/// Inodes that are neither directories nor symbolic links.
pub(crate) struct Attributes;

impl_inode_operations!(Attributes);
impl_inode_operations!(Directory);
impl_inode_operations!(Symlink);
