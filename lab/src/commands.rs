//! What `relais lab` and `relais drill` do, without their command line. Every error is one sentence for the
//! operator; results go to the writer that the caller brings.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::drill::{Drill, Driller};
use crate::platform::{BALANCERS, FRONT, Lab, Result, SERVERS, Settings};
use crate::report::{Run, Total};
use crate::storm::{self, Gust, Weather};

/// `relais lab up`: makes a lab that stays, and says how to use it.
///
/// # Errors
/// If one is up, without root, or if it does not get well.
pub fn up(settings: Settings, out: &mut dyn Write) -> Result<()> {
    let mut progress = |line: &str| drop(writeln!(std::io::stderr(), "{line}"));
    let lab = Lab::up(settings, &mut progress)?;
    let client = format!("ip netns exec relais-lab-{}-client", lab.settings().id);
    let holder = lab.holders()?.first().copied().unwrap_or("nobody");
    print(
        out,
        &format!(
            "the lab is up: {holder} holds {FRONT}\n  ask it     {client} curl http://{}/\n  break it   relais drill \
             balancer-machine\n  look       relais lab status; logs in {}\n  end it     relais lab down\n",
            FRONT.ip(),
            lab.dir().display()
        ),
    )
}

/// `relais lab down`: ends the lab of this id and removes all of it, also what a crash or an interrupted drill left.
///
/// # Errors
/// If something resists.
pub fn down(id: &str, out: &mut dyn Write) -> Result<()> {
    let was_there = Lab::down(id)? | !Lab::end_abandoned()?.is_empty();
    print(out, if was_there { "the lab is down and nothing of it is left\n" } else { "there was no lab\n" })
}

/// One machine of a lab.
#[derive(Debug, Serialize)]
struct Machine {
    host: &'static str,
    address: String,
    holds_address: bool,
    /// Name and pid of what was started on it; no pid: dead.
    processes: Vec<(String, Option<u32>)>,
    /// Why its balancer is not well.
    fault: Option<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    id: String,
    stack: &'static str,
    application: &'static str,
    well: bool,
    fault: Option<String>,
    machines: Vec<Machine>,
}

/// `relais lab status`: what is up and who holds the address.
///
/// # Errors
/// If there is no lab.
pub fn status(id: &str, json: bool, out: &mut dyn Write) -> Result<()> {
    let lab = Lab::attach(id)?;
    let holders = lab.holders()?;
    let machine = |host: &&'static str| {
        let prefix = format!("{host}/");
        let ours = lab.processes().keys().filter_map(|name| Some((name, name.strip_prefix(&prefix)?)));
        Machine {
            host,
            address: lab.network().host(host).address().to_string(),
            holds_address: holders.contains(host),
            processes: ours.map(|(name, short)| (short.into(), lab.process(name).map(|p| p.pid))).collect(),
            fault: lab.balancers().contains(host).then(|| lab.balancer_fault(host)).flatten(),
        }
    };
    let fault = lab.fault();
    let status = Status {
        id: id.into(),
        stack: lab.settings().stack.name(),
        application: lab.settings().application.name(),
        well: fault.is_none(),
        fault,
        machines: BALANCERS.iter().chain(&SERVERS).map(machine).collect(),
    };
    if json {
        return print_json(out, &status);
    }
    let mut text = format!("lab {id}: {} over {}\n", status.stack, status.application);
    for machine in &status.machines {
        let processes = machine.processes.iter().map(|(name, pid)| match pid {
            Some(pid) => format!("{name} ({pid})"),
            None => format!("{name} (dead)"),
        });
        let processes = processes.collect::<Vec<_>>().join(", ");
        let holds = if machine.holds_address { format!(" + {}", FRONT.ip()) } else { String::new() };
        let fault = machine.fault.as_ref().map(|why| format!("  -- {why}")).unwrap_or_default();
        text +=
            &format!("  {:<10} {:<33} {processes}{fault}\n", machine.host, machine.address.clone() + &holds);
    }
    text += &match &status.fault {
        None => "all is well\n".to_owned(),
        Some(why) => format!("not well: {why}\n"),
    };
    print(out, &text)
}

/// What `relais drill` is to do.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// What to break.
    pub drill: Drill,
    /// How often, 1 or more.
    pub times: u32,
    /// How long the download takes that a planned move must not break; the balancers' `drain` is 4 s longer, if not 10 s.
    pub download: Duration,
    /// One JSON object a run and one for the total, instead of a table.
    pub json: bool,
    /// A machine goes deaf instead of losing its carrier.
    pub silent: bool,
    /// The lab: the one of this id if it is up and is such a one, else one of its own for the time of the drill.
    pub settings: Settings,
}

/// `relais drill NAME`: breaks one thing again and again and says what a client saw.
///
/// With failover off the drill must see an outage that does not end by itself (or failed requests, where the
/// break ends by itself), or it cannot see one at all and says so.
///
/// # Errors
/// If the lab cannot be had, or something goes wrong that is not the drill's own doing.
pub fn drill(options: &DrillOptions, out: &mut dyn Write) -> Result<()> {
    let drain_s = options.download.as_secs() + 4;
    let settings = Settings { drain_s: drain_s.max(options.settings.drain_s), ..options.settings.clone() };
    in_a_lab(&settings, |lab| drill_in(lab, options, out))
}

/// Does `work` in the lab of this id if it is up and is such a one, else in one of its own for the time of it.
fn in_a_lab(settings: &Settings, work: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let mut lab = match Lab::attach(&settings.id) {
        Ok(lab) if lab.settings() == settings => lab,
        _ => {
            Lab::end_abandoned()?;
            Lab::up(Lab::own(settings), &mut |line| drop(writeln!(std::io::stderr(), "{line}")))?
        }
    };
    let result = work(&mut lab);
    if lab.settings().id != settings.id {
        let down = Lab::down(&lab.settings().id);
        result.and(down.map(drop))
    } else {
        result
    }
}

fn drill_in(lab: &mut Lab, options: &DrillOptions, out: &mut dyn Write) -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let mut driller =
        Driller::new(lab, options.drill, options.silent, seed).with_download_of(options.download);
    let mut runs = Vec::new();
    if !options.json {
        print(out, &format!("{}\n{HEADING}\n", options.drill))?;
    }
    for _ in 0..options.times.max(1) {
        let run = driller.run()?;
        if options.json {
            print_json(out, &run)?
        } else {
            print(out, &row(&run))?
        }
        if !options.settings.failover && !saw_outage(options.drill, &run) {
            return Err(
                "this drill cannot see an outage: with failover off, clients were served all the same".into(),
            );
        }
        runs.push(run);
    }
    let total = Total::of(&runs);
    if options.json {
        return print_json(out, &total);
    }
    print(
        out,
        &format!(
            "{} runs: longest outage {} ms (median), {} ms (worst); {} of {} requests failed\n",
            total.runs, total.longest_outage_ms, total.max_outage_ms, total.failed, total.requests
        ),
    )
}

/// What `relais drill random` is to do.
#[derive(Clone, Debug)]
pub struct StormOptions {
    /// How many runs, 1 or more.
    pub times: u32,
    /// The first run's faults; each further run has the next number. None: by the clock.
    pub seed: Option<u64>,
    /// One JSON object a run and one for the total, instead of a table.
    pub json: bool,
    /// Each fault is a cut between the balancers.
    pub cuts: bool,
    /// The lab, as for a drill.
    pub settings: Settings,
}

/// `relais drill random`: breaks random things at random moments. A promise that is broken ends it, and says with
/// which seed; without witnesses one must be broken, or it could not be seen.
///
/// # Errors
/// If the lab cannot be had, or a promise was broken.
pub fn storm(options: &StormOptions, out: &mut dyn Write) -> Result<()> {
    let seed = options
        .seed
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()));
    in_a_lab(&options.settings, |lab| {
        let mut weather = Weather::default();
        let mut broken = None;
        for seed in (seed..).take(options.times.max(1) as usize) {
            let faults = if options.cuts { storm::cut(seed) } else { storm::faults(seed) };
            let gust =
                storm::blow(lab, seed, &faults, options.cuts).map_err(|e| format!("{e} (seed {seed})"))?;
            weather.add(&gust);
            if options.json {
                print_json(out, &gust)?;
            } else {
                print(out, &gust_row(weather.runs, &gust))?;
            }
            if let Some(why) = gust.broken.first() {
                broken.get_or_insert(format!("{why} (`--seed {seed}`: {})", gust.faults.join(", ")));
            }
        }
        if options.json {
            print_json(out, &weather)?;
        } else {
            let Weather { runs, two_answered_ms: two, healed_ms: healed, away_ms: away, .. } = weather;
            let line = format!(
                "{runs} runs, the worst of each: two machines answered for {two} ms, and up to {healed} ms after the last \
                 fault; the address was away for {away} ms after it\n"
            );
            print(out, &line)?;
        }
        match broken {
            Some(why) => Err(why),
            None => Ok(()),
        }
    })
}

fn gust_row(run: u32, gust: &Gust) -> String {
    let broken = if gust.broken.is_empty() { "" } else { "  BROKEN: " };
    format!(
        "{run:>4}  two {:>6} ms  healed {:>6} ms  away {:>6} ms  outage {:>6} ms  {:>5}/{:<6} {}{broken}{}\n",
        gust.two_answered_ms,
        gust.healed_ms,
        gust.away_ms,
        gust.longest_outage_ms,
        gust.failed,
        gust.requests,
        gust.faults.join(", "),
        gust.broken.join("; ")
    )
}

/// Whether a run with failover off shows what it must.
fn saw_outage(drill: Drill, run: &Run) -> bool {
    match drill {
        Drill::BalancerReload | Drill::BalancerReturn => run.failed > 0,
        Drill::BalancerControl => true, // no client hears of it, with failover or without
        _ => !run.recovered,
    }
}

const HEADING: &str = "run  broke                     outage  (kept)   failed/requests   p99     two/no holder   left it   repair";

fn row(run: &Run) -> String {
    let left = match run.lost_after_ms {
        Some(after) if after > 0.0 => format!("{after} ms"),
        _ => "-".into(),
    };
    let recovered = if run.recovered { "" } else { "  NOT RECOVERED" };
    let download = match run.download.as_deref() {
        None | Some("whole") => String::new(),
        Some(why) => format!("  DOWNLOAD BROKEN: {why}"),
    };
    format!(
        "{:>3}  {:<22} {:>6} ms {:>7}  {:>7}/{:<8} {:>6} ms {:>6}/{:<6} ms {:>9} {:>6} ms{recovered}{download}\n",
        run.run,
        run.broke,
        run.longest_outage_ms,
        run.keep_alive.longest_outage_ms,
        run.failed,
        run.requests,
        run.new_connections.p99_ms,
        run.two_answered_ms,
        run.holders_ms.neither,
        left,
        run.repair_outage_ms,
    )
}

fn print(out: &mut dyn Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| format!("the result cannot be written: {e}"))
}

fn print_json(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(value).map_err(|e| e.to_string())?;
    print(out, &(line + "\n"))
}
