//! Maglev hashing (Eisenbud et al.: *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI 2016, §3.4).
//!
//! Each server has an order of preference of the table's slots, a permutation that its name decides. In turns, as
//! often as its weight says, each takes the first that is still free. The split is within a percent of the
//! weights; a server more or less in the file moves its own keys and few others.

use alloc::vec;
use alloc::vec::Vec;

use crate::Slots;
use crate::hash::hash;
use crate::weights::reduced;

/// The paper's two sizes, both prime: 100 slots a server and more.
const SIZES: [u64; 2] = [65_537, 655_373];
const FREE: u16 = u16::MAX;

/// A server's order of preference, as far as it has got.
struct Preference {
    place: u16,
    at: u64,
    step: u64,
    weight: u16,
    /// What it has saved up; a slot costs the greatest weight.
    credit: u32,
}

/// The table of servers with these names and weights: at most 65,535 of them. Their order does not matter.
pub fn maglev(servers: &[(&str, u16)]) -> Slots {
    let size = if servers.len() <= 650 { SIZES[0] } else { SIZES[1] };
    Slots::new(maglev_table(servers, size).into(), servers.len())
}

/// The table itself, of `size` slots: a prime, of 100 slots a server and more. Each has the place of its server; it is empty
/// where no server has a weight. For those who look servers up elsewhere, such as the kernel.
pub fn maglev_table(servers: &[(&str, u16)], size: u64) -> Vec<u16> {
    let weights = reduced(&servers.iter().map(|server| server.1).collect::<Vec<_>>());
    let most = u32::from(weights.iter().copied().max().unwrap_or(0));
    if most == 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..servers.len()).filter(|&place| weights[place] > 0).collect();
    order.sort_unstable_by_key(|&place| servers[place].0);
    let mut preferences: Vec<Preference> = order
        .into_iter()
        .map(|place| {
            let hash = hash(servers[place].0.as_bytes());
            let (at, step) = ((hash >> 32) % size, (hash & 0xFFFF_FFFF) % (size - 1) + 1);
            Preference { place: place as u16, at, step, weight: weights[place], credit: 0 }
        })
        .collect();
    let mut table = vec![FREE; size as usize];
    let mut free = table.len();
    while free > 0 {
        for server in &mut preferences {
            server.credit += u32::from(server.weight);
            if server.credit < most || free == 0 {
                continue;
            }
            server.credit -= most;
            while table[server.at as usize] != FREE {
                server.at = (server.at + server.step) % size;
            }
            table[server.at as usize] = server.place;
            free -= 1;
        }
    }
    table
}
