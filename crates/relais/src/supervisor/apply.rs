//! A new plan: checked, given to one child after the other, taken back if one refuses. Until the last
//! has it in force the old one is the current one, and a child that is started gets the old one.

use std::time::Duration;

use relais_base::Time;
use relais_config::overrides::Overrides;
use relais_ipc::message::Answer;
use relais_ipc::{Channel, Role};
use tracing::{error, info, warn};

use super::{Edition, Supervisor, answer, sockets};

/// A child that has not put a plan in force by then refuses it.
const LIMIT: Duration = Duration::from_secs(10);

/// A plan on its way into force.
#[derive(Debug)]
pub(super) struct Applying {
    edition: Edition,
    /// How many of [`Role::ALL`] have it in force.
    done: usize,
    pub(super) deadline: Time,
    /// The command that waits for the end of it.
    asked_by: Option<Channel>,
}

impl Supervisor {
    /// `SIGHUP`: the file again.
    pub(super) async fn reload(&mut self) {
        match super::read_plan(&self.options.file) {
            Ok(text) => self.apply(self.options.file.display().to_string(), text, None).await,
            Err(why) => error!("nothing was changed: {why}"),
        }
    }

    /// Begins to put a plan in force.
    pub(super) async fn apply(&mut self, file: String, text: String, asked_by: Option<Channel>) {
        let overrides = self.current.overrides.clone();
        self.apply_with(file, text, overrides, asked_by).await;
    }

    /// As [`Supervisor::apply`], with other overrides.
    pub(super) async fn apply_with(
        &mut self,
        file: String,
        text: String,
        overrides: Overrides,
        asked_by: Option<Channel>,
    ) {
        let refused = match () {
            () if self.stopping.is_some() => Err("the node is being stopped".to_owned()),
            () if self.inheriting.is_some() || self.upgrading.is_some() => {
                Err("an upgrade is on its way: try again".to_owned())
            }
            () if self.applying.is_some() => Err("another plan is being put in force: try again".to_owned()),
            () => {
                let generation = self.last_generation + 1;
                Edition::parse(&self.options.node, file, text, generation, Vec::new(), overrides)
            }
        };
        let edition = match refused {
            Ok(edition) => edition,
            Err(why) => return refuse(asked_by, &why).await,
        };
        if edition.plan == self.current.plan {
            info!("{} changes nothing", edition.file);
        }
        if let Err(why) = self.sockets.open(&sockets::wanted(&edition.plan, edition.node)) {
            return refuse(asked_by, &why).await;
        }
        if edition.plan.user != self.current.plan.user {
            warn!("the new user takes effect when the node is next started");
        }
        self.notify.reloading();
        self.last_generation = edition.generation;
        self.send_plan(Role::ALL[0], &edition).await;
        self.applying = Some(Applying { edition, done: 0, deadline: self.now() + LIMIT, asked_by });
    }

    /// A child has put a plan in force: the next one's turn, or the end.
    pub(super) async fn apply_on_ready(&mut self, role: Role, generation: u64) {
        let Some(mut applying) = self.applying.take() else { return };
        if applying.edition.generation != generation || Role::ALL[applying.done] != role {
            self.applying = Some(applying);
            return;
        }
        applying.done += 1;
        if let Some(next) = Role::ALL.get(applying.done) {
            self.send_plan(*next, &applying.edition).await;
            self.applying = Some(applying);
            return;
        }
        self.current = applying.edition;
        self.sockets.close_all_but(&sockets::wanted(&self.current.plan, self.current.node));
        self.forget_what_is_gone();
        self.tell_vip_of_frontends().await;
        self.announced_ready = false;
        info!("plan {} (generation {generation}) is in force", self.current.file);
        self.say_what_is_pending();
        let dropped = self.keep_overrides();
        if let Some(channel) = applying.asked_by {
            answer(&channel, &Answer::Applied { generation, dropped }).await;
        }
    }

    /// Health and states of what the plan no longer has.
    fn forget_what_is_gone(&mut self) {
        let plan = &self.current.plan;
        self.health.retain(|(backend, server), _| {
            plan.backends
                .iter()
                .any(|b| *b.name == **backend && b.servers.iter().any(|s| *s.name == **server))
        });
        self.scripts.retain(|command, _| {
            plan.scripts_on(self.current.node).any(|script| *script.command == **command)
        });
        self.vips.retain(|name, _| plan.vips.iter().any(|vip| *vip.name == **name));
    }

    /// A child refuses a plan.
    pub(super) async fn apply_on_refused(&mut self, role: Role, generation: u64, why: &str) {
        if self.applying.as_ref().is_some_and(|applying| applying.edition.generation == generation) {
            self.take_back(&format!("{} refuses it: {why}", role.name())).await;
        }
    }

    /// A child died while a plan was on its way: its successor has the old plan, so have the others.
    pub(super) async fn apply_on_death(&mut self, role: Role) {
        if self.applying.is_some() {
            self.take_back(&format!("{} died while it was put in force", role.name())).await;
        }
    }

    /// A child says nothing.
    pub(super) async fn apply_on_time(&mut self) {
        let now = self.now();
        if let Some(applying) = self.applying.as_ref().filter(|applying| applying.deadline <= now) {
            let role = Role::ALL[applying.done];
            self.take_back(&format!("{} had not put it in force in {} s", role.name(), LIMIT.as_secs()))
                .await;
        }
    }

    /// Gives the current plan, under a new generation, to whoever may have taken the refused one.
    async fn take_back(&mut self, why: &str) {
        let Some(applying) = self.applying.take() else { return };
        self.last_generation += 1;
        self.current.generation = self.last_generation;
        for role in Role::ALL {
            self.send_plan(role, &self.current).await;
        }
        self.sockets.close_all_but(&sockets::wanted(&self.current.plan, self.current.node));
        self.announced_ready = false;
        refuse(applying.asked_by, why).await;
    }
}

/// Says that nothing was changed, to the log and to whoever asked.
async fn refuse(asked_by: Option<Channel>, why: &str) {
    match asked_by {
        Some(channel) => {
            let first = why.lines().next().unwrap_or(why);
            warn!("a plan was refused and nothing was changed: {first}");
            answer(&channel, &Answer::Refused { why: why.to_owned() }).await;
        }
        None if why.contains('\n') => error!("nothing was changed:\n{why}"),
        None => error!("nothing was changed: {why}"),
    }
}
