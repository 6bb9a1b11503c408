// SPDX-License-Identifier: GPL-2.0

//! Operation tables of directories and dentries: lookup, revalidation, submounts.

use crate::{
    contents::file::Handle,
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        walks,
        NodeInode, //
    },
    names::{
        lookup::{
            find,
            grant,
            is_doubtful,
            lookup, //
        },
        namespace, //
    },
    session::{
        epoch::Asked,
        forget::Known,
        freshness::Deadline, //
    },
    volume::mount::Mount, //
};
use fuse_proto::{
    Getattr,
    LookupReply, //
};
use kernel::{prelude::*, sync::Arc};
use vfs::{
    attr::FileType,
    cred::Idmap,
    dentry::{
        LookupDentry,
        LookupFlags,
        NamedDentry,
        RcuDentry, //
    },
    file::NewFile,
    inode::{
        OpenRequest,
        Opened,
        RcuInode,
        RenameFlags, //
    },
    Dentry,
    Inode,
    InodeRef, //
};

/// What the VFS asks of directories.
pub(crate) struct Directory;

#[vtable]
impl vfs::inode::DirectoryOperations for Directory {
    fn lookup(
        dir: &Inode<VirtioFs>,
        dentry: &LookupDentry<VirtioFs>,
        flags: LookupFlags,
    ) -> Result<Option<InodeRef<VirtioFs>>> {
        let found = find(dir, dentry, flags.open())?;
        if found.is_none() && !flags.revalidate() && is_doubtful(dir, dentry.name()) {
            return Err(ESTALE);
        }
        Ok(found)
    }

    fn mknod(
        idmap: &Idmap,
        dir: &Inode<VirtioFs>,
        dentry: &LookupDentry<VirtioFs>,
        file_type: FileType,
        permissions: u16,
        rdev: u32,
    ) -> Result<InodeRef<VirtioFs>> {
        namespace::mknod(idmap, dir, dentry, file_type, permissions, rdev)
    }

    fn mkdir(
        idmap: &Idmap,
        dir: &Inode<VirtioFs>,
        dentry: &LookupDentry<VirtioFs>,
        permissions: u16,
    ) -> Result<InodeRef<VirtioFs>> {
        namespace::mkdir(idmap, dir, dentry, permissions)
    }

    fn symlink(
        idmap: &Idmap,
        dir: &Inode<VirtioFs>,
        dentry: &LookupDentry<VirtioFs>,
        target: &CStr,
    ) -> Result<InodeRef<VirtioFs>> {
        namespace::symlink(idmap, dir, dentry, target)
    }

    fn link(
        inode: &InodeRef<VirtioFs>,
        dir: &Inode<VirtioFs>,
        dentry: &LookupDentry<VirtioFs>,
    ) -> Result<InodeRef<VirtioFs>> {
        namespace::link(inode, dir, dentry)
    }

    fn unlink(dir: &Inode<VirtioFs>, dentry: &NamedDentry<VirtioFs>) -> Result {
        namespace::remove(dir, dentry, false)
    }

    fn rmdir(dir: &Inode<VirtioFs>, dentry: &NamedDentry<VirtioFs>) -> Result {
        namespace::remove(dir, dentry, true)
    }

    fn rename(
        idmap: &Idmap,
        old_dir: &Inode<VirtioFs>,
        old: &NamedDentry<VirtioFs>,
        new_dir: &Inode<VirtioFs>,
        new: &NamedDentry<VirtioFs>,
        flags: RenameFlags,
    ) -> Result {
        namespace::rename(idmap, old_dir, old, new_dir, new, flags)
    }

    fn atomic_open(
        dir: &Inode<VirtioFs>,
        dentry: &LookupDentry<VirtioFs>,
        request: &OpenRequest<'_>,
    ) -> Result<Opened<VirtioFs>> {
        namespace::atomic_open(dir, dentry, request)
    }

    fn tmpfile(
        dir: &Inode<VirtioFs>,
        dentry: &LookupDentry<VirtioFs>,
        request: &OpenRequest<'_>,
    ) -> Result<(InodeRef<VirtioFs>, KBox<Handle>)> {
        namespace::tmpfile(dir, dentry, request)
    }

    fn finish_open(inode: &Inode<VirtioFs>, file: &mut NewFile<VirtioFs>, handle: &Handle) {
        handle.finish_open(inode, file);
    }
}

/// Whether a name is looked up however good it is.
///
/// open(2) with `O_CREAT` promises that what is written is found under the name: what has it may have been removed on the host, or have
/// got another name, which would then be written to or emptied. That costs a LOOKUP where the name was good still, and is more than C
/// does. If there was nothing, CREATE looks.
///
/// `links` is the number of links of what has the name: with none it has no name any more, as was learned by other means (an open file,
/// say), and the host may have given it to another file.
fn must_ask(flags: LookupFlags, links: Option<u32>) -> bool {
    flags.revalidate()
        || flags.exclusive()
        || flags.rename_target()
        || links.is_some() && flags.open() && flags.create()
        || links == Some(0)
}

/// What the VFS asks of dentries.
pub(crate) struct Entries;

#[vtable]
impl vfs::dentry::Operations for Entries {
    type FileSystem = VirtioFs;

    fn revalidate(
        dir: &Inode<VirtioFs>,
        name: &[u8],
        dentry: &Dentry<VirtioFs>,
        flags: LookupFlags,
    ) -> Result<bool> {
        let inode = dentry.inode();
        if inode.is_some_and(Inode::is_stale) {
            return Ok(false);
        }
        let good = Deadline::from_word(dentry.time()).is_ahead();
        if good && !must_ask(flags, inode.map(Inode::nlink)) {
            if let Some(inode) = inode.filter(|_| flags.open()) {
                inode.data().walks_to_open(None);
            }
            return Ok(true);
        }
        // A name that did not exist is looked up anew by the VFS, in one request.
        let Some(inode) = inode else {
            return Ok(false);
        };
        let asked = Asked::now();
        match lookup(dir, name) {
            Ok(LookupReply::Found(entry)) => {
                let known = inode.known()?;
                if !inode.is_same(&entry) {
                    dir.session()?.forget(Known::counted(entry.node));
                    return Ok(false);
                }
                known.looked_up();
                match inode.update(&entry.attr, entry.attr_ttl, asked) {
                    Ok(_) => {}
                    Err(e) if e == ESTALE => return Ok(false),
                    Err(e) => return Err(e),
                }
                grant(dentry, entry.entry_ttl, asked);
                dir.data().names_wanted();
                if flags.open() {
                    inode.data().walks_to_open(Some(asked));
                }
                Ok(true)
            }
            Ok(LookupReply::Negative(_))
                if flags.revalidate() || flags.exclusive() || flags.rename_target() =>
            {
                Ok(false)
            }
            Ok(LookupReply::Negative(_)) => {
                // It was there. What it was reached by may be gone as well: the VFS is to look at that, too, and not to come here again.
                dentry.invalidate();
                if flags.open() {
                    walks::repeats_open();
                }
                Err(ESTALE)
            }
            // The directory, or the inode that the name leads to, is gone.
            Err(e) if e == ESTALE => Ok(false),
            // No answer, so that the name may well be there, and something be mounted on it.
            Err(e) => Err(e),
        }
    }

    fn revalidate_rcu(
        _dir: RcuInode<'_, VirtioFs>,
        _name: &[u8],
        dentry: RcuDentry<'_, VirtioFs>,
        flags: LookupFlags,
    ) -> Result<bool> {
        let good = Deadline::from_word(dentry.time()).is_ahead();
        let inode = dentry.inode();
        let stale = inode.is_some_and(RcuInode::is_stale);
        if good && !stale && !must_ask(flags, inode.map(RcuInode::nlink)) {
            if let Some(inode) = inode.filter(|_| flags.open()) {
                inode.data().walks_to_open(None);
            }
            return Ok(true);
        }
        Err(ECHILD)
    }

    fn delete(dentry: RcuDentry<'_, VirtioFs>) -> bool {
        !Deadline::from_word(dentry.time()).is_ahead()
    }

    fn automount(dentry: &Dentry<VirtioFs>) -> Result<Arc<Mount>> {
        let inode = dentry.inode().ok_or(ENOENT)?;
        let op = Getattr {
            node: inode.node_id()?,
            fh: None,
        };
        let reply = inode.session()?.call(&op, &caller(inode.super_block()))?;
        Mount::submount(inode, reply.attr)
    }
}
