// SPDX-License-Identifier: GPL-2.0

//! Creating, renaming, linking and removing names.
//!
//! The VFS holds the directories' `i_rwsem` around all of this, also while the daemon is asked: what it did and what the dentry
//! cache says change together. Attributes of a directory are out of date with each change in it, and so are those of what
//! gains or loses a name. When a request fails, or nobody knows how it ended, what it named is looked up anew.

use crate::{
    contents::file::Handle,
    filesystem::VirtioFs,
    inode::{
        cred::{
            caller,
            creator, //
        },
        walks,
        NodeInode, //
    },
    metadata::setattr::take_over,
    names::lookup::{
        find,
        grant,
        instantiate,
        is_doubtful,
        lookup, //
    },
    session::{
        epoch::Asked,
        forget::Known,
        room::is_out_of_files, //
    },
};
use fuse_proto::{
    Caller,
    Create,
    CreateReply,
    Device,
    Entry,
    Extensions,
    FileType,
    InitFlags,
    Link,
    LookupReply,
    Mkdir,
    Mknod,
    Opcode,
    OpenFlags,
    Operation,
    Rename,
    SecurityContext,
    Symlink,
    Ttl,
    Unlink,
    NAME_MAX, //
};
use kernel::{fs::file::flags, prelude::*};
use vfs::{
    cred::{
        supplementary_group,
        umask,
        Idmap, //
    },
    dentry::{
        LookupDentry,
        NamedDentry, //
    },
    inode::{
        OpenRequest,
        Opened,
        RenameFlags, //
    },
    security::NewContext,
    Inode,
    InodeRef, //
};

/// How often a file that is there and gone again by turns is tried to be made or opened.
const ATTEMPTS: usize = 8;

/// On whose behalf something is made.
struct Maker {
    caller: Caller,
    /// The directory's group, where the caller has it as a supplementary one.
    group: Option<u32>,
    umask: u16,
    /// Whether the daemon applies the umask.
    unmasked: bool,
    /// Whether the daemon takes security contexts.
    labels: bool,
    context: Option<NewContext>,
}

impl Maker {
    /// The current task, making something in `dir` as `dentry`.
    fn new(
        dir: &Inode<VirtioFs>,
        idmap: &Idmap,
        dentry: &LookupDentry<VirtioFs>,
        file_type: vfs::attr::FileType,
        permissions: u16,
    ) -> Result<Self> {
        let session = dir.session()?;
        let group = if session.has(InitFlags::CREATE_SUPP_GROUP) {
            supplementary_group(dir, idmap)
        } else {
            None
        };
        let labels = session.has(InitFlags::SECURITY_CTX);
        let context = if labels {
            NewContext::of(dentry, file_type, permissions)?
        } else {
            None
        };
        Ok(Self {
            labels,
            context,
            caller: creator(dir.super_block(), idmap)?,
            group,
            umask: umask(),
            unmasked: session.has(InitFlags::DONT_MASK),
        })
    }

    fn permissions(&self, asked: u16) -> u16 {
        if self.unmasked {
            asked
        } else {
            asked & !self.umask
        }
    }

    /// The security context as the daemon is told it.
    fn context(&self) -> Option<SecurityContext<'_>> {
        self.context.as_ref().map(|context| SecurityContext {
            name: context.name().to_bytes(),
            value: context.value(),
        })
    }

    /// What goes with the request; `context` is [`Maker::context`].
    fn extensions<'a>(&'a self, context: &'a Option<SecurityContext<'a>>) -> Extensions<'a> {
        Extensions {
            security: self.labels.then_some(context.as_slice()),
            groups: self.group.as_slice(),
        }
    }
}

/// The name as it goes to the daemon.
fn checked(name: &[u8]) -> Result<&[u8]> {
    if name.len() > NAME_MAX {
        return Err(ENAMETOOLONG);
    }
    Ok(name)
}

/// Has the daemon make something in `dir`, which is told by `is_it`.
///
/// A daemon makes it and looks it up then. If it has no file descriptor left for that, the answer is an error, and what was asked
/// for is there all the same: it is not to be asked for once more, but looked up.
fn make_once<O: Operation<Reply = Entry>>(
    dir: &Inode<VirtioFs>,
    name: &[u8],
    op: &O,
    caller: &Caller,
    is_it: impl Fn(&Entry) -> bool,
) -> Result<Entry> {
    let session = dir.session()?;
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match session.call_once(op, caller) {
            Err(e) if is_out_of_files(e) && left > 0 => {}
            done => return done,
        }
        match lookup(dir, name)? {
            LookupReply::Found(entry) if is_it(&entry) => return Ok(entry),
            LookupReply::Found(entry) => {
                session.forget(Known::counted(entry.node));
                return Err(EEXIST);
            }
            LookupReply::Negative(_) => {}
        }
    }
}

/// Whether an entry may be what `caller` has just made, of this kind.
fn is_new(entry: &Entry, kind: FileType, caller: &Caller) -> bool {
    let links = if kind == FileType::Directory { 2 } else { 1 };
    entry.attr.kind == kind && entry.attr.uid == caller.uid && entry.attr.nlink <= links
}

/// Has the daemon make something in `dir`, and returns its inode.
fn make<O: Operation<Reply = Entry>>(
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    op: &O,
    caller: &Caller,
    kind: FileType,
) -> Result<InodeRef<VirtioFs>> {
    let asked = Asked::now();
    let reply = make_once(dir, dentry.name(), op, caller, |entry| {
        is_new(entry, kind, caller)
    });
    dir.data().changed_names();
    let entry = reply?;
    let inode = instantiate(dir, &entry, asked)?;
    grant(dentry, entry.entry_ttl, asked);
    Ok(inode)
}

/// mknod(2), and open(2) where the daemon does not know CREATE.
pub(crate) fn mknod(
    idmap: &Idmap,
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    file_type: vfs::attr::FileType,
    permissions: u16,
    rdev: u32,
) -> Result<InodeRef<VirtioFs>> {
    let maker = Maker::new(dir, idmap, dentry, file_type, permissions)?;
    let context = maker.context();
    let op = Mknod {
        parent: dir.node_id()?,
        name: checked(dentry.name())?,
        kind: FileType::from_mode(file_type.mode().into()).ok_or(EINVAL)?,
        permissions: maker.permissions(permissions),
        umask: maker.umask,
        rdev: Device::from_wire(rdev),
        extensions: maker.extensions(&context),
    };
    make(dir, dentry, &op, &maker.caller, op.kind)
}

/// mkdir(2).
pub(crate) fn mkdir(
    idmap: &Idmap,
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    permissions: u16,
) -> Result<InodeRef<VirtioFs>> {
    let maker = Maker::new(
        dir,
        idmap,
        dentry,
        vfs::attr::FileType::Directory,
        permissions,
    )?;
    let context = maker.context();
    let op = Mkdir {
        parent: dir.node_id()?,
        name: checked(dentry.name())?,
        permissions: maker.permissions(permissions),
        umask: maker.umask,
        extensions: maker.extensions(&context),
    };
    make(dir, dentry, &op, &maker.caller, FileType::Directory)
}

/// symlink(2).
pub(crate) fn symlink(
    idmap: &Idmap,
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    target: &CStr,
) -> Result<InodeRef<VirtioFs>> {
    let maker = Maker::new(dir, idmap, dentry, vfs::attr::FileType::Symlink, 0o777)?;
    let context = maker.context();
    let op = Symlink {
        parent: dir.node_id()?,
        name: checked(dentry.name())?,
        target: target.to_bytes(),
        extensions: maker.extensions(&context),
    };
    make(dir, dentry, &op, &maker.caller, FileType::Symlink)
}

/// link(2). `EPERM` where the daemon has no such thing, as man-pages have it for filesystems.
pub(crate) fn link(
    inode: &InodeRef<VirtioFs>,
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
) -> Result<InodeRef<VirtioFs>> {
    let op = Link {
        node: inode.node_id()?,
        kind: FileType::from_mode(inode.file_type().mode().into()).ok_or(EIO)?,
        new_parent: dir.node_id()?,
        new_name: checked(dentry.name())?,
    };
    let asked = Asked::now();
    let caller = caller(dir.super_block());
    let reply = make_once(dir, dentry.name(), &op, &caller, |entry| {
        inode.is_same(entry)
    });
    dir.data().changed_names();
    inode.data().changed_attributes();
    let entry = reply.map_err(|e| if e == ENOSYS { EPERM } else { e })?;
    let linked = if inode.is_same(&entry) {
        inode.known()?.looked_up();
        take_over(inode, &entry.attr, entry.attr_ttl, asked, false)?;
        inode.clone()
    } else {
        // What the guest knew by the old name had been replaced on the host.
        instantiate(dir, &entry, asked)?
    };
    grant(dentry, entry.entry_ttl, asked);
    Ok(linked)
}

/// One of the names of `inode` is gone; `changed` as well is when it was the only one.
fn lost_name(inode: &Inode<VirtioFs>) {
    let mut locked = inode.lock();
    if inode.is_dir() {
        locked.attrs().set_nlink(0);
    } else {
        locked.attrs().drop_nlink();
    }
    drop(locked);
    inode.data().changed_attributes();
}

/// Nobody knows what is true of a name that a request failed for.
fn doubt(dir: &Inode<VirtioFs>, name: &NamedDentry<VirtioFs>) {
    dir.data().changed_names();
    grant(name, Ttl::ZERO, Asked::now());
    if let Some(inode) = name.inode() {
        inode.data().changed_attributes();
    }
}

/// unlink(2), or with `is_dir` rmdir(2).
pub(crate) fn remove(dir: &Inode<VirtioFs>, name: &NamedDentry<VirtioFs>, is_dir: bool) -> Result {
    let op = Unlink {
        parent: dir.node_id()?,
        name: checked(name.name())?,
        dir: is_dir,
    };
    let done = dir.session()?.call(&op, &caller(dir.super_block()));
    // A name that becomes one of nothing has no time to live from the daemon.
    doubt(dir, name);
    done?;
    if let Some(inode) = name.inode() {
        lost_name(inode);
    }
    Ok(())
}

/// rename(2) and renameat2(2). `EINVAL` for flags that the daemon does not know.
pub(crate) fn rename(
    idmap: &Idmap,
    old_dir: &Inode<VirtioFs>,
    old: &NamedDentry<VirtioFs>,
    new_dir: &Inode<VirtioFs>,
    new: &NamedDentry<VirtioFs>,
    flags: RenameFlags,
) -> Result {
    let sb = old_dir.super_block();
    let op = Rename {
        parent: old_dir.node_id()?,
        name: checked(old.name())?,
        new_parent: new_dir.node_id()?,
        new_name: checked(new.name())?,
        flags: flags.bits(),
    };
    // A whiteout is a new inode, and somebody's.
    let who = if flags.whiteout() {
        creator(sb, idmap)?
    } else {
        caller(sb)
    };
    match old_dir.session()?.call(&op, &who) {
        Ok(()) => {}
        Err(e) if e == ENOSYS && flags.bits() != 0 => return Err(EINVAL),
        Err(e) => {
            doubt(old_dir, old);
            doubt(new_dir, new);
            return Err(e);
        }
    }
    old_dir.data().changed_names();
    new_dir.data().changed_names();
    if let Some(moved) = old.inode() {
        moved.data().changed_attributes();
    }
    match new.inode() {
        Some(other) if flags.exchange() => other.data().changed_attributes(),
        Some(victim) => lost_name(victim),
        None => {}
    }
    Ok(())
}

/// open(2) of a name that is not known, or known to be nothing.
///
/// What is to be made is made with `O_EXCL` in any case. So the reply tells that it is new, which decides about permissions: a
/// file that was there has to be looked at by the VFS before it is opened, let alone truncated, and a symbolic link is
/// followed. The name is looked up only when there is something.
pub(crate) fn atomic_open(
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    request: &OpenRequest<'_>,
) -> Result<Opened<VirtioFs>> {
    // Whether the VFS is to look once more for what is not here. The mark of a repeated open stays while symbolic links are followed.
    let look_again = || -> bool {
        let again = !walks::is_repeated_open() && is_doubtful(dir, dentry.name());
        if again {
            walks::repeats_open();
        }
        again
    };
    if !request.creates() {
        let found = find(dir, dentry, true)?;
        if found.is_none() && look_again() {
            return Err(ESTALE);
        }
        return Ok(Opened::Found(found));
    }
    let mut last = ESTALE;
    for _ in 0..ATTEMPTS {
        let refused = match create(dir, dentry, request) {
            Ok(opened) => {
                walks::is_repeated_open();
                return Ok(opened);
            }
            Err(e) if is_out_of_files(e) => {
                last = e;
                continue;
            }
            Err(e) => e,
        };
        let is_answer = ![EINTR, ENOTCONN, ENODEV, ENOMEM].contains(&refused);
        if request.exclusive() || !is_answer {
            return Err(refused);
        }
        // Not every daemon looks for the file first. If there is one, it can be opened all the same.
        if let Some(inode) = find(dir, dentry, true)? {
            return Ok(Opened::Found(Some(inode)));
        }
        if refused == ENOENT && look_again() {
            return Err(ESTALE);
        }
        if refused != EEXIST {
            return Err(refused);
        }
    }
    Err(last)
}

fn create(
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    request: &OpenRequest<'_>,
) -> Result<Opened<VirtioFs>> {
    if !dir.session()?.lacks(Opcode::Create) {
        let flags = request.flags() | flags::O_CREAT | flags::O_EXCL;
        let name = Some(checked(dentry.name())?);
        let asked = Asked::now();
        match create_and_open(dir, dentry, name, flags & !flags::O_TRUNC, request) {
            Ok((inode, handle, entry)) => {
                grant(dentry, entry.entry_ttl, asked);
                return Ok(Opened::CreatedAndOpened(inode, handle));
            }
            Err(e) if is_out_of_files(e) => return made_or_not(dir, dentry, request, e),
            Err(e) if e == ENOSYS => {}
            Err(e) => return Err(e),
        }
    }
    let file_type = vfs::attr::FileType::Regular;
    let permissions = request.permissions();
    let asked = Asked::now();
    let inode = mknod(request.idmap(), dir, dentry, file_type, permissions, 0)?;
    inode.data().walks_to_open(Some(asked));
    Ok(Opened::Created(inode))
}

/// Nobody knows whether the daemon has made a file: if it has not, it was `refused`, and can be asked again.
fn made_or_not(
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    request: &OpenRequest<'_>,
    refused: Error,
) -> Result<Opened<VirtioFs>> {
    let asked = Asked::now();
    let LookupReply::Found(entry) = lookup(dir, dentry.name())? else {
        return Err(refused);
    };
    let caller = creator(dir.super_block(), request.idmap())?;
    let is_ours = is_new(&entry, FileType::Regular, &caller) && entry.attr.size == 0;
    let inode = instantiate(dir, &entry, asked)?;
    grant(dentry, entry.entry_ttl, asked);
    inode.data().walks_to_open(Some(asked));
    Ok(match is_ours {
        true => Opened::Created(inode),
        false if request.exclusive() => return Err(EEXIST),
        false => Opened::Found(Some(inode)),
    })
}

/// open(2) with `O_TMPFILE`.
pub(crate) fn tmpfile(
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    request: &OpenRequest<'_>,
) -> Result<(InodeRef<VirtioFs>, KBox<Handle>)> {
    create_and_open(dir, dentry, None, request.flags(), request)
        .map(|(inode, handle, _)| (inode, handle))
        .map_err(|e| if e == ENOSYS { EOPNOTSUPP } else { e })
}

/// CREATE, or without a name TMPFILE. Where the daemon had no descriptors left it may have made the file, and has some now.
fn create_and_open(
    dir: &Inode<VirtioFs>,
    dentry: &LookupDentry<VirtioFs>,
    name: Option<&[u8]>,
    flags: u32,
    request: &OpenRequest<'_>,
) -> Result<(InodeRef<VirtioFs>, KBox<Handle>, Entry)> {
    let session = dir.session()?;
    let maker = Maker::new(
        dir,
        request.idmap(),
        dentry,
        vfs::attr::FileType::Regular,
        request.permissions(),
    )?;
    let context = maker.context();
    let op = Create {
        parent: dir.node_id()?,
        name,
        flags: flags & !flags::O_NOCTTY,
        open_flags: OpenFlags::NONE,
        permissions: maker.permissions(request.permissions()),
        umask: maker.umask,
        extensions: maker.extensions(&context),
    };
    // What must not fail later: without memory for the handle nothing is made.
    let mut handle = Handle::new()?;
    let asked = Asked::now();
    // Without a name it can be made twice: the first one is gone.
    let reply = match name {
        Some(_) => session.call_once(&op, &maker.caller),
        None => session.call(&op, &maker.caller),
    };
    if name.is_some() {
        dir.data().changed_names();
    }
    let CreateReply { entry, open } = reply?;
    handle.opened(open);
    let mut opened = || -> Result<InodeRef<VirtioFs>> {
        let inode = instantiate(dir, &entry, asked)?;
        handle.join(&inode, flags)?;
        Ok(inode)
    };
    let inode = opened().inspect_err(|_| session.release(entry.node, false, open.fh, flags))?;
    Ok((inode, handle, entry))
}
