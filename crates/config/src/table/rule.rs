//! `rule` itself; its conditions are in `condition`, its actions in `action`.

use super::Type::Name;
use super::{Directive, Effect, Kind, Section, Times, required};

pub(super) const ROWS: &[Directive] = &[Directive {
    name: "rule",
    inside: &[Section::Frontend, Section::Backend],
    arguments: &[required("name", Name(Kind::Rule), "what it is for, in words; logs and metrics say it")],
    block: Some(Section::Rule),
    times: Times::Many,
    doc: "Rules are asked in the order of the file. When every `match` and no `unless` of one is true of a request, its actions are taken; `deny`, `respond`, `redirect` and `backend` end it, after the others no rule is skipped. Several values in one `match` are alternatives. Every rule sees the request as the client sent it. What no rule answers or sends elsewhere goes to `default-backend`. Those of a `backend` are asked once it is chosen, after those of the frontend; they choose no other. In `mode tcp` there are `src` and `port`, `backend` and `deny`.",
    example: "rule \"manager from the ministry only\" { match path \"/manager/**\"; unless src \"192.168.112.0/24\"; deny 403; }",
    effect: Effect::Tests(&[
        "the_manager_is_for_one_network_only",
        "rules_are_asked_in_order_until_one_ends_it",
        "rules_of_a_backend_are_for_what_it_answers",
    ]),
    ..Directive::EMPTY
}];
