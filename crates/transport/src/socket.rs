// SPDX-License-Identifier: AGPL-3.0-or-later
//! What all sockets have in common, whoever does their I/O: sending and receiving without blocking.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use crate::change::Arrival;
use crate::counters::{Counters, Load};
use crate::error::{Error, SendError, Taken};
use crate::libzmq::Context;
use crate::message::Message;
use crate::moving::{MoveError, Packed};
use crate::options::Options;
use crate::role::Role;
use crate::{direct, libzmq};

/// Who does the I/O.
pub(crate) enum Engine {
    /// We, on unix sockets, in the thread of the reactor.
    Direct(Box<direct::Socket>),
    /// libzmq, on anything.
    Libzmq(Box<libzmq::Socket>),
}

/// The part of a socket that its typed wrapper and the reactor share.
pub(crate) struct Core {
    pub(crate) engine: Engine,
    /// Messages received, and those of a shape that the socket type does not have.
    received: Cell<u64>,
    malformed: Cell<u64>,
}

pub(crate) type Handle = Rc<Core>;

/// A share in a socket, for the reactor.
pub struct Registration(pub(crate) Handle);

/// A socket that a reactor can wait for.
pub trait Polled {
    /// What the reactor needs to know of it.
    fn registration(&self) -> Registration;
}

/// Has the engine do something that both know how to do.
macro_rules! each {
    ($core:expr, $socket:ident => $do:expr) => {
        match &$core.engine {
            Engine::Direct($socket) => $do,
            Engine::Libzmq($socket) => $do,
        }
    };
}

impl Core {
    fn new(context: &Context, role: Role, local: bool, options: &Options) -> Result<Handle, Error> {
        let engine = match local {
            true => Engine::Direct(Box::new(direct::Socket::new(role, options))),
            false => Engine::Libzmq(Box::new(libzmq::Socket::new(context, role, options)?)),
        };
        Ok(Rc::new(Core { engine, received: Cell::default(), malformed: Cell::default() }))
    }

    pub(crate) fn bound(context: &Context, role: Role, spec: &str, options: &Options) -> Result<Handle, Error> {
        let core = Core::new(context, role, direct::is_local(spec), options)?;
        each!(core, socket => socket.bind(spec))?;
        Ok(core)
    }

    pub(crate) fn connected<S: AsRef<str>>(
        context: &Context,
        role: Role,
        specs: &[S],
        options: &Options,
    ) -> Result<Handle, Error> {
        let local = specs.iter().all(|spec| direct::is_local(spec.as_ref()));
        let core = Core::new(context, role, local, options)?;
        for spec in specs {
            each!(core, socket => socket.connect(spec.as_ref()))?;
        }
        Ok(core)
    }

    /// What has arrived next, if there is anything.
    pub(crate) fn next_arrival(&self) -> Option<Arrival> {
        each!(self, socket => socket.next_arrival())
    }

    /// The next part of a message, if one is there.
    pub(crate) fn recv_part(&self) -> Option<Message> {
        loop {
            if let Arrival::Part(part) = self.next_arrival()? {
                return Some(part);
            }
        }
    }

    /// A message of exactly one part. Others are skipped and counted.
    pub(crate) fn recv_single(&self) -> Option<Message> {
        loop {
            let part = self.recv_part()?;
            if !part.more() {
                self.count_received();
                return Some(part);
            }
            self.skip_rest();
        }
    }

    /// A message was received in a shape that the socket type has.
    pub(crate) fn count_received(&self) {
        self.received.set(self.received.get() + 1);
    }

    /// A message was received in another shape; all of it has been.
    pub(crate) fn count_malformed(&self) {
        self.malformed.set(self.malformed.get() + 1);
    }

    /// Drops what is left of a message, of which a part that is not the last was received.
    pub(crate) fn skip_rest(&self) {
        self.count_malformed();
        while self.recv_part().is_some_and(|part| part.more()) {}
    }

    /// Sends a message to whom the socket type says, or keeps it until somebody takes it.
    pub(crate) fn send(&self, parts: &[&[u8]]) -> Result<Taken, SendError> {
        each!(self, socket => socket.send(parts))
    }

    /// Sends a message to the peer of a name; for one that is not there it waits a while.
    pub(crate) fn send_to(&self, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
        each!(self, socket => socket.send_to(name, parts))
    }

    /// Sends what waits, as far as peers take it.
    pub(crate) fn flush(&self, now: Instant) {
        each!(self, socket => socket.flush(now))
    }

    /// When [`Core::flush`] has something to do again.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        each!(self, socket => socket.next_due(now))
    }

    /// Has the reactor ask whether there is something to receive.
    pub(crate) fn touch(&self) {
        if let Engine::Libzmq(socket) = &self.engine {
            socket.touch();
        }
    }

    /// Leaves the addresses of this machine to another process, and has peers connect to it as well.
    pub(crate) fn give_way(&self) {
        if let Engine::Direct(socket) = &self.engine {
            socket.give_way();
        }
    }

    /// Binds addresses of this machine again that another process has bound in the meantime.
    pub(crate) fn bind_again(&self) -> Result<(), Error> {
        match &self.engine {
            Engine::Direct(socket) => socket.bind_again(),
            Engine::Libzmq(_) => Ok(()),
        }
    }

    /// Writes everything down for another process.
    pub(crate) fn pack(&self) -> Result<Packed, MoveError> {
        match &self.engine {
            Engine::Direct(socket) => socket.pack(),
            Engine::Libzmq(_) => Err(MoveError::Kind),
        }
    }

    /// A socket as another process has packed it.
    pub(crate) fn unpacked(role: Role, options: &Options, packed: Packed) -> Result<Handle, MoveError> {
        let engine = Engine::Direct(Box::new(direct::Socket::unpack(role, options, packed)?));
        Ok(Rc::new(Core { engine, received: Cell::default(), malformed: Cell::default() }))
    }

    /// The addresses of an unpacked socket are ours from now on.
    pub(crate) fn claim(&self) {
        if let Engine::Direct(socket) = &self.engine {
            socket.claim();
        }
    }

    /// Another process has addresses and links from now on.
    pub(crate) fn let_go(&self) {
        if let Engine::Direct(socket) = &self.engine {
            socket.let_go();
        }
    }

    /// Whether something has to be tried again and again, because nothing tells when it could be sent.
    pub(crate) fn is_retrying(&self) -> bool {
        match &self.engine {
            Engine::Direct(_) => false,
            Engine::Libzmq(socket) => socket.is_retrying(),
        }
    }

    /// Messages that have not been handed to the kernel or to libzmq, but for those for absent peers.
    pub(crate) fn unsent(&self) -> usize {
        match &self.engine {
            Engine::Direct(socket) => socket.queued(),
            Engine::Libzmq(socket) => socket.held_up().messages,
        }
    }

    /// What peers do not take for now, what waits for absent ones included.
    pub(crate) fn load(&self) -> Load {
        each!(self, socket => socket.load())
    }

    /// What waits for the peer of a name.
    pub(crate) fn load_of(&self, name: &[u8]) -> Load {
        each!(self, socket => socket.load_of(name))
    }

    /// Whether anybody is there, as far as that is known.
    pub(crate) fn has_peer(&self) -> bool {
        match &self.engine {
            Engine::Direct(socket) => socket.has_peer(),
            Engine::Libzmq(_) => true,
        }
    }

    /// Takes back messages that wait for any peer; libzmq gives none back.
    pub(crate) fn take_unsent(&self) -> Vec<Vec<u8>> {
        match &self.engine {
            Engine::Direct(socket) => socket.take_unsent(),
            Engine::Libzmq(_) => Vec::new(),
        }
    }

    /// Whether anybody has subscribed to anything, as far as that is known.
    pub(crate) fn is_heard(&self) -> bool {
        each!(self, socket => socket.is_heard())
    }

    /// Whether the peer of a name is there, as far as that is known.
    pub(crate) fn is_present(&self, name: &[u8]) -> bool {
        each!(self, socket => socket.is_present(name))
    }

    /// Whether a peer takes a message now.
    pub(crate) fn is_writable(&self) -> bool {
        each!(self, socket => socket.is_writable())
    }

    pub(crate) fn subscribe(&self, prefix: &[u8]) -> Result<(), Error> {
        each!(self, socket => socket.subscribe(prefix))
    }

    pub(crate) fn unsubscribe(&self, prefix: &[u8]) -> Result<(), Error> {
        each!(self, socket => socket.unsubscribe(prefix))
    }

    pub(crate) fn add_warnings(&self, totals: &mut BTreeMap<&'static str, u64>) {
        each!(self, socket => socket.add_warnings(totals));
    }

    pub(crate) fn counters(&self) -> Counters {
        let counters = each!(self, socket => socket.counters());
        Counters { received: self.received.get(), malformed: self.malformed.get(), ..counters }
    }
}

/// What every typed socket offers beside its own sending and receiving.
macro_rules! socket_common {
    ($type:ident, $role:expr $(, $field:ident)*) => {
        impl $type {
            /// A socket bound to an address, such as `ipc:///run/x` or `tcp://127.0.0.1:5560`.
            ///
            /// # Errors
            /// The address is in use, or not one.
            pub fn bind(
                context: &$crate::Context,
                spec: &str,
                options: &$crate::Options,
            ) -> Result<Self, $crate::Error> {
                let core = $crate::socket::Core::bound(context, $role, spec, options)?;
                Ok($type { core, $($field: Default::default()),* })
            }

            /// A socket that connects to all of the addresses; the peers need not be there yet.
            ///
            /// # Errors
            /// An address is not one.
            pub fn connect<S: AsRef<str>>(
                context: &$crate::Context,
                specs: &[S],
                options: &$crate::Options,
            ) -> Result<Self, $crate::Error> {
                let core = $crate::socket::Core::connected(context, $role, specs, options)?;
                Ok($type { core, $($field: Default::default()),* })
            }

            /// Writes everything down for another process; nothing changes here.
            ///
            /// # Errors
            /// It is not of a kind that can move.
            pub fn pack(&self) -> Result<$crate::Packed, $crate::MoveError> {
                self.core.pack()
            }

            /// A socket as another process has packed it: not to be used before it is [claimed](crate::Reactor::claim).
            ///
            /// # Errors
            /// It is not of this type, of another version, or can not be set up.
            pub fn unpack(options: &$crate::Options, packed: $crate::Packed) -> Result<Self, $crate::MoveError> {
                let core = $crate::socket::Core::unpacked($role, options, packed)?;
                Ok($type { core, $($field: Default::default()),* })
            }

            /// What the socket has done so far.
            pub fn counters(&self) -> $crate::Counters {
                self.core.counters()
            }

            /// What peers do not take for now, all together; what waits for peers that are not there is part of it.
            pub fn load(&self) -> $crate::Load {
                self.core.load()
            }
        }

        impl $crate::socket::Polled for $type {
            fn registration(&self) -> $crate::socket::Registration {
                $crate::socket::Registration(self.core.clone())
            }
        }
    };
}
pub(crate) use socket_common;
