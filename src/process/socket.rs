//! The kernel's TCP sockets: who listens on a port, how many connections it has.
//!
//! Asked over sock_diag(7), which answers with the sockets in question only. /proc/net/tcp lists all of them, tens of
//! thousands on a busy proxy, and is the fallback where the kernel has no sock_diag.
#![deny(clippy::arithmetic_side_effects)]

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr as SocketAddress};
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result, anyhow, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::unistd::{Gid, Uid};
use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use procfs::process::all_processes;

use super::{Pid, Process, describe, tree};
use crate::account::Account;

/// Who listens on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Nobody,
    /// This process; the first in the tree when several share the socket.
    Process(Process),
    /// Somebody who cannot be named: a process of another user, whose descriptors we may not see, or one of ours that is
    /// just ending, whose sockets outlive its entry in /proc by a moment. The uid is the socket's.
    Hidden(Uid),
}

impl Owner {
    /// In words: `node (pid 4711)`.
    pub fn in_words(self) -> String {
        match self {
            Owner::Nobody => "nobody".to_owned(),
            Owner::Process(process) => describe(process.pid),
            Owner::Hidden(uid) => format!("a process of user {}", Account::of(uid, Gid::from_raw(uid.as_raw())).name),
        }
    }
}

/// A socket of the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    inode: u64,
    uid: u32,
    /// Where it is bound to.
    address: IpAddr,
}

impl Entry {
    /// How widely it is bound that whoever calls 127.0.0.1 comes to it: 0 for that address alone; None: nobody does.
    fn width_on_loopback(&self) -> Option<u8> {
        match self.address.to_canonical() {
            IpAddr::V4(Ipv4Addr::LOCALHOST) => Some(0),
            IpAddr::V4(address) => address.is_unspecified().then_some(1),
            IpAddr::V6(address) => address.is_unspecified().then_some(2),
        }
    }
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where somebody listened.
    Server,
    /// Where somebody called.
    Client,
}

/// The sockets of a port that one can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Listening,
    /// Open at this end: answers may still be under way on them.
    Connected(End),
}

impl Kind {
    /// Whether a socket is one of these: whoever calls an instance calls it on the loopback.
    fn has(self, port: u16, here: SocketAddress, there: SocketAddress) -> bool {
        match self {
            Kind::Connected(End::Client) => there.port() == port && there.ip().is_loopback(),
            Kind::Listening | Kind::Connected(End::Server) => here.port() == port,
        }
    }
}

/// How many connections to this port are open at that end, as far as it is in this network; of those who call, only on the
/// loopback.
pub fn connections(port: u16, end: End) -> Result<usize> {
    Ok(sockets(port, Kind::Connected(end))?.len())
}

/// Who listens on this port, on whatever address. `likely` is the root of the tree where it is looked for first, which
/// spares a walk over all the machine's processes.
pub fn owner(port: u16, likely: Option<Pid>) -> Result<Owner> {
    let listening = sockets(port, Kind::Listening)?;
    let Some(first) = listening.first() else { return Ok(Owner::Nobody) };
    let names: HashSet<Vec<u8>> = listening.iter().map(|one| format!("socket:[{}]", one.inode).into_bytes()).collect();
    // The root is a supervise, which never listens: it comes last.
    let mut near = likely.map(tree).unwrap_or_default();
    let root = near.len().min(1);
    near.rotate_left(root);
    if let Some(found) = near.into_iter().find(|process| holds_any(process.pid, &names)) {
        return Ok(Owner::Process(found));
    }
    let all = all_processes().context("cannot read /proc")?;
    let found = all.flatten().map(|process| Pid::from_raw(process.pid)).find(|pid| holds_any(*pid, &names));
    Ok(found.and_then(Process::with_pid).map_or(Owner::Hidden(Uid::from_raw(first.uid)), Owner::Process))
}

/// The user whose socket somebody who calls a port on 127.0.0.1 may come to, although it is not this user's; None: there is
/// none. The kernel tells it of every socket, to everybody.
pub fn stranger(port: u16, owner: Uid) -> Result<Option<Uid>> {
    let listening = sockets(port, Kind::Listening)?;
    // The kernel prefers the socket that is bound most narrowly, and lets nobody else bind one that takes its calls: what lies
    // beside it listens on another address, or for version 6 only.
    let nearest = listening.iter().filter_map(Entry::width_on_loopback).min();
    let mut reached = listening.iter().filter(|one| nearest.is_some() && one.width_on_loopback() == nearest);
    Ok(reached.find(|one| one.uid != owner.as_raw()).map(|one| Uid::from_raw(one.uid)))
}

/// Where any of these processes listens, in the order of the ports. All the machine's sockets are looked through, so this is for
/// messages only.
pub fn listening(processes: &[Process]) -> Vec<SocketAddress> {
    let names: HashSet<Vec<u8>> = processes.iter().flat_map(|process| descriptors(process.pid)).collect();
    let entries = tcp().into_iter().chain(tcp6()).flatten();
    let listens = entries.filter(|entry| entry.state == TcpState::Listen);
    let own = listens.filter(|entry| names.contains(format!("socket:[{}]", entry.inode).as_bytes()));
    let mut addresses: Vec<SocketAddress> = own.map(|entry| entry.local_address).collect();
    addresses.sort_by_key(|address| (address.port(), address.ip()));
    addresses.dedup();
    addresses
}

fn holds_any(pid: Pid, sockets: &HashSet<Vec<u8>>) -> bool {
    descriptors(pid).any(|target| sockets.contains(&target))
}

/// What the descriptors of a process are, `socket:[4711]`; none when they are not to be seen.
fn descriptors(pid: Pid) -> impl Iterator<Item = Vec<u8>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.map(|target| target.into_os_string().into_vec())
}

/// A port's sockets of one kind, IPv4 and IPv6.
fn sockets(port: u16, kind: Kind) -> Result<Vec<Entry>> {
    asked(port, kind).or_else(|_| listed(port, kind))
}

fn asked(port: u16, kind: Kind) -> Result<Vec<Entry>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut found = ask(&socket, AF_INET, SocketId::new_v4(), port, kind)?;
    // A kernel without IPv6 refuses the second question.
    found.extend(ask(&socket, AF_INET6, SocketId::new_v6(), port, kind).unwrap_or_default());
    Ok(found)
}

fn ask(socket: &Socket, family: u8, mut socket_id: SocketId, port: u16, kind: Kind) -> Result<Vec<Entry>> {
    match kind {
        Kind::Connected(End::Client) => socket_id.destination_port = port,
        Kind::Listening | Kind::Connected(End::Server) => socket_id.source_port = port,
    }
    let states = match kind {
        Kind::Listening => StateFlags::LISTEN,
        Kind::Connected(_) => StateFlags::ESTABLISHED | StateFlags::SYN_RECV | StateFlags::CLOSE_WAIT,
    };
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let part = parse(&datagram, port, kind)?;
        found.extend(part.entries);
        if part.is_last {
            return Ok(found);
        }
    }
}

/// What a datagram of the kernel's answer holds.
#[derive(Debug, Default)]
struct Part {
    entries: Vec<Entry>,
    is_last: bool,
}

fn parse(datagram: &[u8], port: u16, kind: Kind) -> Result<Part> {
    let mut part = Part::default();
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(|error| anyhow!("{error}"))?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                let socket = &response.header.socket_id;
                let here = SocketAddress::new(socket.source_address, socket.source_port);
                let there = SocketAddress::new(socket.destination_address, socket.destination_port);
                if kind.has(port, here, there) {
                    let (inode, uid) = (response.header.inode.into(), response.header.uid);
                    part.entries.push(Entry { inode, uid, address: here.ip() });
                }
            }
            NetlinkPayload::Done(_) => {
                part.is_last = true;
                break;
            }
            _ => bail!("sock_diag refused the question"),
        }
        // Messages are padded to four bytes.
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(part)
}

fn listed(port: u16, kind: Kind) -> Result<Vec<Entry>> {
    let wanted: &[TcpState] = match kind {
        Kind::Listening => &[TcpState::Listen],
        Kind::Connected(_) => &[TcpState::Established, TcpState::SynRecv, TcpState::CloseWait],
    };
    let mut entries = tcp().context("cannot read /proc/net/tcp")?;
    // A kernel without IPv6 has no such table.
    entries.extend(tcp6().unwrap_or_default());
    let is_it = |entry: &TcpNetEntry| kind.has(port, entry.local_address, entry.remote_address);
    let matching = entries.iter().filter(|entry| is_it(entry) && wanted.contains(&entry.state));
    Ok(matching.map(|entry| Entry { inode: entry.inode, uid: entry.uid, address: entry.local_address.ip() }).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream};

    use netlink_packet_core::DoneMessage;
    use netlink_packet_sock_diag::inet::{InetResponse, InetResponseHeader};
    use proptest::prelude::*;

    use super::*;

    /// An answer as the kernel's: a socket, and the end.
    fn answer(port: u16, inode: u32, uid: u32) -> Vec<u8> {
        let header = InetResponseHeader {
            family: AF_INET,
            state: 10,
            timer: None,
            socket_id: SocketId { source_port: port, ..SocketId::new_v4() },
            recv_queue: 0,
            send_queue: 0,
            uid,
            inode,
        };
        let response = InetResponse { header, nlas: Default::default() };
        let mut socket: NetlinkMessage<SockDiagMessage> =
            NetlinkMessage::new(NetlinkHeader::default(), SockDiagMessage::InetResponse(Box::new(response)).into());
        let mut end: NetlinkMessage<SockDiagMessage> =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::Done(DoneMessage::default()));
        let mut bytes = Vec::new();
        for message in [&mut socket, &mut end] {
            message.finalize();
            let at = bytes.len();
            bytes.resize(at + message.buffer_len(), 0);
            message.serialize(&mut bytes[at..]);
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_the_kernel_says_is_understood(port: u16, inode: u32, uid: u32) {
            let part = parse(&answer(port, inode, uid), port, Kind::Listening).unwrap();
            let address = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
            prop_assert_eq!(part.entries, [Entry { inode: inode.into(), uid, address }]);
            prop_assert!(part.is_last);
            prop_assert!(parse(&answer(port, inode, uid), port.wrapping_add(1), Kind::Listening).unwrap().entries.is_empty());
        }

        #[test]
        fn any_bytes_end_in_an_answer_or_an_error(bytes: Vec<u8>, port: u16) {
            drop(parse(&bytes, port, Kind::Connected(End::Client)));
        }

        #[test]
        fn a_damaged_answer_ends_in_an_answer_or_an_error(
            end in 0usize..200, at in 0usize..200, byte: u8, port: u16,
        ) {
            let mut bytes = answer(port, 7, 7);
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(end);
            drop(parse(&bytes, port, Kind::Connected(End::Client)));
        }
    }

    #[test]
    fn the_kernel_and_its_listing_say_the_same() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine may have no IPv6.
            if TcpListener::bind(address).is_ok() {
                // Somebody else's connection may have the same port at this moment.
                assert!((0..10).any(|_| say_the_same(address)), "{address}");
            }
        }
        assert_eq!(asked(1, Kind::Listening).unwrap(), Vec::new());
    }

    fn say_the_same(address: &str) -> bool {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _server = listener.accept().unwrap();
        [Kind::Listening, Kind::Connected(End::Server), Kind::Connected(End::Client)].into_iter().all(|kind| {
            let (asked, listed) = (asked(port, kind).unwrap(), listed(port, kind).unwrap());
            asked == listed && asked.len() == 1
        })
    }
}
