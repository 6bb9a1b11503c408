// SPDX-License-Identifier: GPL-2.0

//! Superblocks: mounting, statfs, unmounting.
//!
//! A mount of a tag that is mounted already gets the same superblock. A directory that the daemon announces as the root of
//! another filesystem of the host gets a superblock, and so a device number, of its own; it shares the session.

use crate::{
    contents::{
        file::Handle,
        writeback, //
    },
    dax::mode::Mode,
    filesystem::VirtioFs,
    inode::{
        cred::caller,
        iget,
        killpriv,
        node::Node,
        NodeInode, //
    },
    metadata::xattr::AnyXattr,
    mount::{
        export::Handles,
        options::{
            Options,
            PARAMETERS, //
        },
    },
    names::dir::Entries,
    session::{
        epoch::Asked,
        forget::Known,
        Session, //
    },
    transport::binding,
    volume::mount::Mount, //
};
use fuse_proto::{
    Caller,
    Getattr,
    InitFlags,
    NodeId,
    Statfs,
    Syncfs, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Arc, //
};
use kernel_ext::task::is_exiting;
use vfs::{
    attr::StatFs,
    context::{
        Context,
        Purpose, //
    },
    filesystem::Flags,
    parameter::Parameters,
    Dentry,
    FileSystem,
    Inode,
    InodeRef,
    NewSuperBlock,
    SuperBlock, //
};

/// What statfs(2) shows as the type: that of FUSE (`FUSE_SUPER_MAGIC`), which programs look for.
const MAGIC: u32 = 0x6573_5546;
/// Percentage of the dirty pages that the kernel allows at all which a mount may have, as what is dirty stays so while its daemon
/// stalls: three quarters are enough for the other filesystems to go on as before. Less as long as the daemon has taken little:
/// one percent to begin with, which is what the C driver stays at.
const DIRTY_PERCENT: u32 = 25;

/// Refuses a mount: one line in the kernel's log, and one for who uses the newer system calls, which have a log of their own.
/// What the older one says goes to the kernel's log anyway.
fn refuse(context: &Context<VirtioFs>, tag: &CStr, why: &str) -> Error {
    context.error(fmt!("{tag:?}: {why}"));
    if !context.is_old_api() {
        pr_err!("{tag:?}: {why}\n");
    }
    EINVAL
}

#[vtable]
impl FileSystem for VirtioFs {
    const NAME: &'static CStr = c"virtiofs";
    const FLAGS: Flags = Flags::ALLOW_IDMAP;
    const PARAMETERS: Parameters<Options> = PARAMETERS.parameters();

    type Options = Options;
    type Super = Mount;
    type InodeData = Node;
    type FileData = KBox<Handle>;
    type Dentries = Entries;
    type Xattrs = (AnyXattr,);

    fn prepare(context: &mut Context<Self>) -> Result<Arc<Mount>> {
        let tag = match (&context.options().tag, context.source()) {
            (Some(tag), _) => &**tag,
            (None, Some(source)) => source,
            (None, None) => return Err(refuse(context, c"", "the mount names no tag")),
        };
        let Some(instance) = binding::find(tag) else {
            return Err(refuse(context, tag, "no device has this tag"));
        };
        let dax = context.options().dax;
        if dax == Some(Mode::Always) && instance.memory().is_none() {
            return Err(refuse(
                context,
                tag,
                "dax=always, but the device has no window",
            ));
        }
        Mount::new(instance, dax)
    }

    fn same(existing: &Mount, candidate: &Mount) -> bool {
        existing.serves(candidate)
    }

    fn fill_super(
        sb: &mut NewSuperBlock<Self>,
        context: &mut Context<Self>,
    ) -> Result<InodeRef<Self>> {
        let mount: Arc<Mount> = sb.data_arc().into();
        let main = context.purpose() == Purpose::Mount;
        if main {
            mount.start_volume()?;
        }
        let volume = mount.volume()?.clone();
        volume.join(mount.clone())?;
        let refused = main && mount.dax() == Some(Mode::Always) && volume.window().is_none();
        let root = match refused {
            true => Err(refuse(
                context,
                mount.instance().tag(),
                "dax=always, but there is no window to be had",
            )),
            false => Self::fill_root(sb, &mount, volume.session()),
        };
        if root.is_err() {
            volume.leave(&mount);
        }
        root
    }

    fn reconfigure(sb: &SuperBlock<Self>, context: &mut Context<Self>) -> Result {
        match context.options().dax {
            None => Ok(()),
            same if same == sb.data().dax() => Ok(()),
            _ => {
                context.error(fmt!("dax can't be changed while mounted"));
                Err(EINVAL)
            }
        }
    }

    fn inode_data(_sb: &SuperBlock<Self>) -> impl PinInit<Node, Error> {
        Node::new()
    }

    fn evict_inode(node: &Node, sb: &SuperBlock<Self>, nlink: u32) {
        if nlink > 0 {
            sb.data().evicts();
        }
        if let (Some(known), Ok(session)) = (node.known(), sb.data().session()) {
            session.instance().inodes().go();
            if known.unshare() {
                match (node.mapped(), sb.data().window()) {
                    (Some(file), Some(window)) => window.evicted(file),
                    _ => session.forget(known.clone()),
                }
            }
        }
    }

    fn write_inode(inode: &Inode<Self>, _wait: bool) -> Result {
        writeback::write_times(inode)
    }

    fn statfs(dentry: &Dentry<Self>) -> Result<StatFs> {
        let inode = dentry.inode().ok_or(ENOENT)?;
        let stat = inode.session()?.call(
            &Statfs {
                node: inode.node_id()?,
            },
            &caller(inode.super_block()),
        )?;
        Ok(StatFs {
            block_size: stat.bsize,
            fragment_size: stat.frsize,
            blocks: stat.blocks,
            blocks_free: stat.bfree,
            blocks_available: stat.bavail,
            files: stat.files,
            files_free: stat.ffree,
            name_max: stat.namelen,
        })
    }

    /// What the kernel leaves out of sync(2), syncfs(2) and an unmount, see `stores`: it waits until what is dirty now is on the host.
    fn sync_fs(sb: &SuperBlock<Self>, wait: bool) -> Result {
        let session = sb.data().session()?;
        let root = sb.root().and_then(Dentry::inode);
        let Some(root) = root.filter(|_| wait && session.is_connected()) else {
            return Ok(());
        };
        write_back(sb, session)?;
        let op = Syncfs {
            node: root.node_id()?,
        };
        match session.call(&op, &caller(sb)) {
            Err(e) if e == ENOSYS => Ok(()),
            done => done,
        }
    }

    fn umount_begin(sb: &SuperBlock<Self>) {
        if let Ok(volume) = sb.data().volume() {
            volume.abort();
        }
    }

    /// Ranges of the window: the guest's memory has what finds the pages of each, and tables that map them.
    fn cached_objects(sb: &SuperBlock<Self>) -> usize {
        sb.data().window().map_or(0, |window| window.idle())
    }

    fn free_cached_objects(sb: &SuperBlock<Self>, count: usize) -> usize {
        if let Some(window) = sb.data().window() {
            window.shrink(count);
        }
        // Others do it.
        0
    }

    /// What an unmount would wait for where no signal ends that is waited for first. SIGKILL is then as `umount -f`, which comes too
    /// late: the mount has no name any more. Not while other superblocks use the session, and not for a task that was killed before
    /// and takes its last mounts with it: what it has left dirty is to get to the host.
    fn shutting_down(sb: &SuperBlock<Self>) {
        let gate = sb.data().gate();
        let Ok(volume) = sb.data().volume() else {
            return gate.close();
        };
        let session = volume.session();
        let settled = gate
            .close_killable()
            .and_then(|()| write_back(sb, session))
            .and_then(|()| session.settle_pages());
        if settled == Err(EINTR) && !is_exiting() && volume.has_one_superblock() {
            volume.abort();
        }
        gate.close();
    }

    fn put_super(sb: &SuperBlock<Self>) {
        if let Ok(volume) = sb.data().volume() {
            volume.leave(sb.data());
        }
    }

    fn source(sb: &SuperBlock<Self>) -> &CStr {
        sb.data().instance().tag()
    }

    fn show_options(sb: &SuperBlock<Self>, seq: &SeqFile) -> Result {
        if let Some(dax) = sb.data().dax() {
            seq_print!(seq, ",dax={}", dax.as_str());
        }
        Ok(())
    }
}

/// Waits until all that is dirty is on the host: contents, what has become dirty again while it was being written, and the times, which
/// come last. Sleeps; a fatal signal ends that with `EINTR`. To be called with `s_umount` held.
fn write_back(sb: &SuperBlock<VirtioFs>, session: &Session) -> Result {
    for _ in 0..2 {
        sb.begin_writeback();
        session.stores().wait()?;
    }
    sb.begin_writeback();
    Ok(())
}

impl VirtioFs {
    fn fill_root(
        sb: &mut NewSuperBlock<Self>,
        mount: &Mount,
        session: &Arc<Session>,
    ) -> Result<InodeRef<Self>> {
        let agreed = session.agreed();
        sb.set_magic(MAGIC)
            .set_time_granularity(agreed.time_gran)
            .set_unverifiable()
            .set_waits_itself()
            .set_posix_acl();
        if killpriv::by_daemon(session) {
            sb.set_nosec();
        }
        if session.has(InitFlags::DONT_MASK) {
            sb.set_no_umask();
        }
        if !session.has(InitFlags::ALLOW_IDMAP) {
            sb.set_no_idmap();
        }
        sb.set_export::<Handles>(!session.has(InitFlags::NO_EXPORT_SUPPORT));
        sb.setup_bdi(agreed.max_readahead as usize / PAGE_SIZE, DIRTY_PERCENT)?;
        let asked = Asked::now();
        let (known, attr, ttl) = match mount.begins_at() {
            // Whoever walks onto the inode that it begins at holds that, and so what the daemon has counted, meanwhile.
            Some((known, attr)) => (known.share(), *attr, Default::default()),
            None => {
                let op = Getattr {
                    node: NodeId::ROOT,
                    fh: None,
                };
                let reply = session.call(&op, &Caller::default())?;
                (Known::new(NodeId::ROOT)?, reply.attr, reply.ttl)
            }
        };
        iget::root(sb, known, &attr, ttl, asked)
    }
}
