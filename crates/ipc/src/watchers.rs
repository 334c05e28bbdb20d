//! Sockets that say that this node's Relais lives, by being open; nothing is sent on them. The supervisor and vip both
//! hold each of them, so that the kernel closes it when both are dead, and not when one of them is started again.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Most connections that are held; a node has few backups, and each has one for each interface.
const MAX: usize = 64;

/// Connections by which backups on other nodes watch this one, as far as a process holds them.
#[derive(Debug, Default)]
pub struct Watchers(Vec<OwnedFd>);

/// The sockets that the gate's program in the kernel looks for (`crates/vip`): the present vip's, and the one before,
/// which may have gates until the present one has replaced them.
#[derive(Debug, Default)]
pub struct Pulses([Option<OwnedFd>; 2]);

impl Pulses {
    /// Holds one more, and lets go of the one before the last.
    pub fn hold(&mut self, pulse: OwnedFd) {
        self.0 = [self.0[1].take(), Some(pulse)];
    }
}

impl Watchers {
    /// Holds one more, and lets go of those whose other end is gone.
    pub fn hold(&mut self, connection: OwnedFd) {
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut fds: Vec<_> = self.0.iter().map(|fd| PollFd::new(fd, PollFlags::RDHUP)).collect();
        let looked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok();
        let open: Vec<bool> = fds.iter().map(|fd| !(looked && fd.revents().intersects(ended))).collect();
        let mut open = open.into_iter();
        self.0.retain(|_| open.next().unwrap_or(false));
        if self.0.len() == MAX {
            self.0.remove(0);
        }
        self.0.push(connection);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn those_that_ended_make_room() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut watchers = Watchers::default();
        let connect = || {
            let there = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
            (there, OwnedFd::from(listener.accept().expect("the other end").0))
        };
        let (first, end) = connect();
        watchers.hold(end);
        let (second, end) = connect();
        watchers.hold(end);
        assert_eq!(watchers.0.len(), 2);
        drop(first);
        let (_third, end) = connect();
        watchers.hold(end);
        assert_eq!(watchers.0.len(), 2);
        drop(second);
        for _ in 0..2 * MAX {
            watchers.hold(connect().1);
        }
        assert!(watchers.0.len() <= MAX);
    }
}
