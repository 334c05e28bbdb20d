//! Who answers for the virtual address, moment by moment: the switch asks the link by ARP, every 5 ms, and notes
//! which machines say that it is theirs. `holders` sees the address on an interface; this sees what clients would.
//!
//! The questions are probes (RFC 5227 §1.1: no sender address), which nobody learns anything from: a client that was
//! not told of a move stays ignorant of it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::report::ms;
use crate::sys;

/// How often the link is asked; an answer takes a tenth of a millisecond.
const EVERY: Duration = Duration::from_millis(5);
const ETHERTYPE_ARP: u16 = 0x0806;

/// One question, and how many machines answered.
type Asked = (Instant, usize);

/// A watch over one link.
#[derive(Debug)]
pub struct Watch {
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Asks for `address` from the interface `device` of `netns`, until dropped.
    ///
    /// # Errors
    /// If there is no such interface, or without the right to send frames.
    pub fn start(netns: &Netns, device: &str, address: Ipv4Addr) -> io::Result<Watch> {
        let mut netlink = Netlink::open(netns)?;
        let (index, mac) = (netlink.index(device)?, netlink.mac(device)?);
        let socket = netns.run(|| {
            let (flags, arp) = (SocketFlags::CLOEXEC, Some(rustix::net::eth::ARP));
            Ok(socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, arp)?)
        })?;
        let question = question(mac, address);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (notes, stopped) = (asked.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("answers".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let at = Instant::now();
                let _ = sys::broadcast(&socket, index, ETHERTYPE_ARP, &question); // a switch that is gone has no answers
                std::thread::sleep(EVERY);
                let machines = answers(&socket, address);
                notes.lock().unwrap_or_else(PoisonError::into_inner).push((at, machines));
            }
        })?;
        Ok(Watch { asked, stop, thread: Some(thread) })
    }

    /// Milliseconds in `from..until` in which more than one machine answered.
    pub fn more_than_one(&self, from: Instant, until: Instant) -> f64 {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        ms(sum(&asked, from, until))
    }

    /// The last moment in `from..until` at which more than one machine answered.
    pub fn end_of_more_than_one(&self, from: Instant, until: Instant) -> Option<Instant> {
        last(&self.asked.lock().unwrap_or_else(PoisonError::into_inner), from, until)
    }

    /// The longest time in `from..until` in which more than one machine answered all the while.
    pub fn longest_of_more_than_one(&self, from: Instant, until: Instant) -> Duration {
        longest(&self.asked.lock().unwrap_or_else(PoisonError::into_inner), from, until)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The last question that two answered.
fn last(asked: &[Asked], from: Instant, until: Instant) -> Option<Instant> {
    let inside = asked.iter().filter(|(at, machines)| (from..until).contains(at) && *machines > 1);
    inside.map(|(at, _)| *at).next_back()
}

/// Counts each question that two answered as the time to the next one.
fn sum(asked: &[Asked], from: Instant, until: Instant) -> Duration {
    let inside =
        asked.iter().enumerate().filter(|(_, (at, machines))| (from..until).contains(at) && *machines > 1);
    let next = |i: usize| asked.get(i + 1).map_or(until, |(next, _)| *next).min(until);
    inside.map(|(i, (at, _))| next(i) - *at).sum()
}

/// From the first question of an unbroken row that two answered to the first that they did not.
fn longest(asked: &[Asked], from: Instant, until: Instant) -> Duration {
    let (mut longest, mut since) = (Duration::ZERO, None);
    for (at, machines) in asked.iter().filter(|(at, _)| (from..until).contains(at)) {
        match (since, *machines > 1) {
            (None, true) => since = Some(*at),
            (Some(begin), false) => {
                longest = longest.max(*at - begin);
                since = None;
            }
            _ => {}
        }
    }
    longest.max(since.map_or(Duration::ZERO, |begin| until - begin))
}

/// An ARP probe; the kernel writes the Ethernet header.
fn question(mac: [u8; 6], address: Ipv4Addr) -> [u8; 28] {
    let mut question = [0; 28];
    question[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    question[8..14].copy_from_slice(&mac);
    question[24..].copy_from_slice(&address.octets());
    question
}

/// How many machines have said since the last question that the address is theirs.
fn answers(socket: &OwnedFd, address: Ipv4Addr) -> usize {
    let (mut buffer, mut machines) = ([0u8; 128], Vec::<[u8; 6]>::new());
    while let Ok((length, _)) = recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
        if let Some(machine) = answer(&buffer[..length], address)
            && !machines.contains(&machine)
        {
            machines.push(machine);
        }
    }
    machines.len()
}

/// Who says in this ARP packet that the address is theirs.
fn answer(packet: &[u8], address: Ipv4Addr) -> Option<[u8; 6]> {
    const REPLY: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 2];
    let (head, rest) = packet.split_first_chunk::<8>()?;
    let (machine, rest) = rest.split_first_chunk::<6>()?;
    (*head == REPLY && rest.starts_with(&address.octets())).then_some(*machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_which_two_answer_is_summed() {
        let from = Instant::now();
        let at = |ms: u64| from + Duration::from_millis(ms);
        let asked = [(at(0), 1), (at(5), 2), (at(10), 2), (at(15), 0), (at(20), 3)];
        assert_eq!(sum(&asked, from, at(30)), Duration::from_millis(20));
        assert_eq!(sum(&asked, from, at(8)), Duration::from_millis(3));
        assert_eq!(sum(&asked, at(6), at(16)), Duration::from_millis(5));
        assert_eq!(longest(&asked, from, at(22)), Duration::from_millis(10));
        assert_eq!(longest(&asked, from, at(50)), Duration::from_millis(30), "it does not end");
        assert_eq!(last(&asked, from, at(18)), Some(at(10)));
        assert_eq!(last(&asked, at(15), at(18)), None);
        assert_eq!(longest(&asked, at(15), at(20)), Duration::ZERO);
    }

    #[test]
    fn only_replies_for_the_address_count() {
        let vip = Ipv4Addr::new(10, 9, 0, 100);
        let mut packet = question([2, 0, 0, 0, 0, 9], vip);
        assert_eq!(answer(&packet, vip), None, "a question");
        packet[7] = 2;
        assert_eq!(answer(&packet, vip), None, "an answer for another address");
        packet[14..18].copy_from_slice(&vip.octets());
        assert_eq!(answer(&packet, vip), Some([2, 0, 0, 0, 0, 9]));
    }
}
