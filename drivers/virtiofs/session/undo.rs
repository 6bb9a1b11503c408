// SPDX-License-Identifier: GPL-2.0

//! Late replies: lookups and handles that a killed task was granted are given back.
//!
//! Inodes that were looked up and handles that were opened are given back. A request that may have changed something has all
//! attributes and names doubted that were known before.

use crate::{
    session::{
        epoch::{
            doubt_everything,
            may_change, //
        },
        forget::Known,
        given_up::Overdue,
        Session, //
    },
    transport::{
        lane::Lane,
        request::{
            check,
            Request, //
        },
    },
};
use fuse_proto::{
    Create,
    CreateReply,
    DirentsPlus,
    Extensions,
    Fh,
    Lookup,
    LookupReply,
    NodeId,
    Opcode,
    Open,
    OpenFlags,
    Operation,
    Plus,
    Readdir, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use virtio::{
    AtEnd,
    End,
    Outcome,
    Payload,
    Transfer, //
};

/// The end of a request whose waiter has gone.
struct Undo(Overdue);

impl End<Request> for Undo {
    /// Leaves the rest to a work item. If memory is short it is not undone before DESTROY.
    fn ended(&self, _lane: &Lane, transfer: &Arc<Transfer<Request>>, outcome: Outcome) {
        let (Outcome::Returned(used) | Outcome::Late(used)) = outcome else {
            return;
        };
        if may_change(transfer.owner().opcode()) {
            doubt_everything();
        }
        let (session, transfer) = (self.0.session().clone(), transfer.clone());
        let instance = self.0.session().instance();
        let _ = instance.work().try_spawn(GFP_ATOMIC, move || {
            let _ = session.give_back_reply(&transfer, used);
        });
    }
}

impl Session {
    /// What a waiter leaves behind that gives `op` up.
    pub(crate) fn undo<O: Operation>(self: &Arc<Self>, op: &O) -> Option<AtEnd<Request>> {
        let overdue = Overdue::new(self.clone(), [op.node(), op.other_node()]);
        Some(AtEnd::new(Undo(overdue)))
    }

    /// Gives back what the reply brings. Sleeps.
    fn give_back_reply(self: &Arc<Self>, transfer: &Transfer<Request>, used: usize) -> Result {
        let request = transfer.owner();
        let (node, dir) = (
            request.node().unwrap_or(NodeId::ROOT),
            matches!(request.opcode(), Opcode::Opendir),
        );
        match request.opcode() {
            // All of these are answered alike.
            Opcode::Lookup | Opcode::Mknod | Opcode::Mkdir | Opcode::Symlink | Opcode::Link => {
                let op = Lookup {
                    parent: node,
                    name: b".",
                };
                if let LookupReply::Found(entry) = self.recheck(transfer, &op, used)? {
                    self.forget(Known::counted(entry.node));
                }
            }
            Opcode::Create | Opcode::Tmpfile => {
                let op = Create {
                    parent: node,
                    name: Some(b"."),
                    flags: 0,
                    open_flags: OpenFlags::NONE,
                    permissions: 0,
                    umask: 0,
                    extensions: Extensions::default(),
                };
                let CreateReply { entry, open } = self.recheck(transfer, &op, used)?;
                self.release(entry.node, false, open.fh, 0);
                self.forget(Known::counted(entry.node));
            }
            Opcode::Open | Opcode::Opendir => {
                let op = Open {
                    node,
                    dir,
                    flags: 0,
                    open_flags: OpenFlags::NONE,
                };
                let opened = self.recheck(transfer, &op, used)?;
                self.release(node, dir, opened.fh, 0);
            }
            Opcode::Readdirplus => {
                let Payload::Pages(pages) = transfer.payload() else {
                    return Err(EIO);
                };
                let op = Readdir {
                    node,
                    plus: true,
                    fh: Fh(0),
                    offset: 0,
                    size: u32::try_from(pages.len())?,
                    flags: 0,
                };
                let len = self.recheck(transfer, &op, used)?;
                let mut listing = KVVec::from_elem(0, len, GFP_KERNEL)?;
                pages.read(0, &mut listing)?;
                let mut records = DirentsPlus::new(&listing);
                while let Some(Ok(record)) = records.next() {
                    if let Plus::Entry(fuse_proto::Entry { node, .. }) | Plus::Bad(node, _) =
                        record.plus
                    {
                        self.forget(Known::counted(node));
                    }
                }
                self.forget_refused(&records);
            }
            _ => {}
        }
        Ok(())
    }

    /// The reply of a transfer that the device has returned, checked as one to `op`.
    pub(crate) fn recheck<O: Operation>(
        &self,
        transfer: &Transfer<Request>,
        op: &O,
        used: usize,
    ) -> Result<O::Reply> {
        check(self.instance().request_queue()?.data(), transfer, op, used)
    }
}
